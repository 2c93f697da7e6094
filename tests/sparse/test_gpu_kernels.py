"""The selections of a GPU, in Triton's interpreter, are those of sorting. On a GPU: tests/gpu/test_sparse.py."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import torch
from prisma.sparse import gpu_kernels

generator = torch.Generator().manual_seed(0)
for n, m, k in ((3, 7, 3), (2, 33, 8), (2, 4, 4)):
    p = torch.randn(n, m, generator=generator)
    p[0, :3] = 0.5  # of equals, the first are taken
    for by_size, size in ((False, p), (True, p.abs())):
        columns = gpu_kernels.top_columns(p, k, by_size)
        assert columns.sort(dim=1).values.equal(columns) and all(len(set(row)) == k for row in columns.tolist())
        assert size.gather(1, columns).sort(dim=1).values.equal(size.topk(k).values.sort(dim=1).values)
    for kept in (1, n * k - 1):
        wanted = p.flatten().sort(descending=True).values[kept].clamp_min(0)
        assert gpu_kernels.batch_threshold(p, kept) == wanted
        lopsided = p.clone()
        lopsided[0] += 50  # one row has all that is kept
        wanted = lopsided.flatten().sort(descending=True).values[kept].clamp_min(0)
        assert gpu_kernels.batch_threshold(lopsided, kept) == wanted
assert gpu_kernels.top_columns(torch.zeros(1, 5), 2).tolist() == [[0, 1]]
assert gpu_kernels.batch_threshold(-torch.ones(2, 3), 1) == 0
print("whole")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="torch comes without Triton here")
def test_selections_are_those_of_sorting() -> None:
    told = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **told}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "whole\n", done.stderr
