"""The selections of a GPU, in Triton's interpreter, are those of sorting. On a GPU: tests/gpu/test_sparse.py."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from prisma.sparse import kernels
from prisma.sparse.gpu_kernels import fits

PROGRAM = """
import torch
from prisma.sparse.gpu_kernels import batch_threshold, top_columns
inf, nan = torch.inf, torch.nan
generator = torch.Generator().manual_seed(0)
p = torch.randn(6, 33, generator=generator)
p[1, :20] = 0.5  # of equals, the first are taken
p[2] = torch.where(torch.arange(33) < 30, -inf, inf)
p[3, 7] = nan  # NaN is the largest, so that it is seen, and whatever its sign
p[4].view(torch.int32)[9] = -1  # every bit is set
p[5] = 0
assert p[4, 9].isnan()
for by_size, size in ((False, p), (True, p.abs())):
    columns = top_columns(p, 8, by_size)
    assert (columns.diff(dim=1) > 0).all()
    wanted, found = size.topk(8).values.sort(dim=1).values, size.gather(1, columns).sort(dim=1).values
    assert torch.equal(found.nan_to_num(nan=99), wanted.nan_to_num(nan=99)), by_size
    assert columns[5].tolist() == list(range(8)) and 7 in columns[3] and 9 in columns[4]
half = torch.randn(1, 9, generator=generator).bfloat16()
assert torch.equal(half.gather(1, top_columns(half, 4)).sort().values, half.topk(4).values.sort().values)
assert top_columns(half[:, :4], 4).tolist() == [[0, 1, 2, 3]] and top_columns(half[:0], 2).shape == (0, 2)
assert batch_threshold(-torch.ones(2, 3), 1) == 0
p = torch.randn(10, 33, generator=generator)
for lift in (0, 50):  # then one row has all that are kept, and more of them than are looked at first
    p[0] += lift
    assert batch_threshold(p, 9) == p.flatten().sort(descending=True).values[9].clamp_min(0)
print("whole")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="torch comes without Triton here")
def test_selections_are_those_of_sorting() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "whole\n", done.stderr


def test_they_are_for_rows_of_a_gpu_in_float32_at_most() -> None:
    """In float64, numbers that float32 cannot tell apart would tie."""

    class OnGpu:
        is_cuda, shape = True, (4, 1000)

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

    found = [fits(OnGpu(dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float16)]  # type: ignore[arg-type]
    assert found == [find_spec("triton") is not None] * 3
    assert not fits(OnGpu(torch.float64)) and not fits(torch.zeros(4, 1000))  # type: ignore[arg-type]


def test_the_threshold_of_a_batch_is_of_all_its_tokens_whatever_axes_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(kernels, "fits", lambda p: True)
    monkeypatch.setattr(kernels, "batch_threshold", lambda p, kept: (seen.append((*p.shape, kept)), p.new_zeros(()))[1])
    kernels.top_threshold(torch.randn(3, 5, 8, dtype=torch.bfloat16), 2)
    assert seen == [(15, 8, 30)]
