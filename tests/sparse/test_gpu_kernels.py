"""The kernels of a GPU, in Triton's interpreter, against torch; they compile. On a GPU: tests/gpu/test_sparse.py."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from prisma.sparse.gpu_kernels import fits

HAS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="torch comes without Triton here")

PROGRAM = """
import torch
from prisma.sparse.gpu_kernels import top_columns
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
print("whole")
"""
BATCHES = """
import torch
from prisma.sparse import gpu_kernels
from prisma.sparse.gpu_kernels import batch_threshold, places_above
gpu_kernels.BLOCK = 32  # so that rows and numbers are in several
generator = torch.Generator().manual_seed(0)
assert batch_threshold(-torch.ones(2, 3), 1) == 0
p = torch.randn(4, 90, generator=generator)
p[1, :50] = 0.5  # equal ones
p[2] = -1  # a row of which nothing is kept
for dtype, lift, kept in ((torch.float32, 0, 0), (torch.float32, 0, 95), (torch.float32, 0, 359),
                          (torch.float32, 50, 60), (torch.bfloat16, 0, 30), (torch.bfloat16, 50, 100)):
    some = p.to(dtype)
    some[0] += lift  # then one row has nearly all that are kept
    theta = batch_threshold(some, kept)
    assert theta.dtype == dtype
    assert theta == some.flatten().sort(descending=True).values[kept].clamp_min(0), (dtype, kept)
    columns, rows, offsets = places_above(some, theta, kept)
    n = int(offsets[-1])
    assert n <= kept and torch.equal(torch.stack([rows[:n], columns[:n]]), (some > theta).nonzero().T)
    assert not rows[n:].any() and not columns[n:].any()
    assert torch.equal(offsets[1:], (some > theta).sum(1).cumsum(0))
p[2, 3] = torch.nan
assert batch_threshold(p, 0).isnan()  # the largest, as in torch
assert batch_threshold(p, 1) == p.nan_to_num(nan=-1).max()
print("whole")
"""
PRODUCTS = """
import torch
from prisma.sparse.gpu_kernels import entry_dots, segment_sums
generator = torch.Generator().manual_seed(0)
for n, m, d in ((3, 7, 1), (4, 40, 130)):
    on = torch.rand(n, m, generator=generator) < 0.6
    on[1] = False  # a row without entries
    on[2] = True  # more entries than are taken at once
    rows, columns = on.nonzero(as_tuple=True)
    room = torch.zeros(4, dtype=torch.int64)  # of which no entry is
    columns, offsets = torch.cat([columns, room]), torch.nn.functional.pad(on.sum(1).cumsum(0), (1, 0))
    values = torch.randn(len(columns), generator=generator)
    for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        matrix = torch.randn(m, d, generator=generator).to(dtype)
        z = torch.zeros(n, m).index_put((rows, columns[:-4]), values[:-4])
        sums = segment_sums(values, columns, offsets, matrix)
        assert sums.dtype == dtype and sums.shape == (n, d) and (sums[1] == 0).all()
        assert torch.allclose(sums.float(), z @ matrix.float(), rtol=close, atol=10 * close)
        own = torch.randn(n, d, generator=generator).to(dtype)
        dots, wanted = entry_dots(own, matrix, columns, offsets), (own.float() @ matrix.float().T)[rows, columns[:-4]]
        assert (dots[-4:] == 0).all() and torch.allclose(dots[:-4].float(), wanted, rtol=close, atol=10 * close)
    assert torch.equal(segment_sums(values, columns, offsets, matrix.T.contiguous().T), sums)  # of any strides
    matrix[0, 0] = torch.nan
    assert torch.equal(segment_sums(values, columns, offsets, matrix)[:, 0].isnan(), on[:, 0])
assert segment_sums(values, columns, offsets[:1], matrix).shape == (0, d)
print("whole")
"""
STEPS = """
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from prisma.sparse import gpu_kernels, kernels
from prisma.sparse.coders import COUNTED
from prisma.sparse.losses import loss
from tests.sparse.test_coders import random_coder
from tests.sparse.test_learner import WAITING

class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert operator.overloadpacket._qualified_op_name not in WAITING, operator
        return operator(*args, **(kwargs or {}))

def gradients(kind, dtype, dead):
    more = {"prefixes": (4, 11, 20)} if kind == "matryoshka" else {}
    coder = random_coder(kind, 6, 20, 4, 0, **more).float().requires_grad_(True)
    if kind == "batchtopk":
        coder.b_enc.data -= 4  # fewer are above 0 than there is room for, which lies at latent 0
        coder.b_enc.data[0] += 9
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = loss(coder, x, x, sparsity=0.0, dead=dead, k_aux=3, n_dead=torch.tensor(13))
    found.total.backward()
    return [found.total, found.error, found.active.float(), found.l0] + [w.grad for w in coder.parameters()]

asked = [(kind, torch.float32, torch.arange(15)) for kind in COUNTED]
asked.append(("matryoshka", torch.bfloat16, torch.arange(0)))
wanted = [gradients(*one) for one in asked]
kernels.on_cpu, kernels.fits = lambda x: False, lambda x: True  # as if these tensors were on a GPU
kernels.SMALLEST_ROW, gpu_kernels.BLOCK, gpu_kernels.PART = 1, 32, 16  # the interpreter is slow
for one, numbers in zip(asked, wanted):
    with Watch():
        found = gradients(*one)
    for a, b in zip(found, numbers, strict=True):
        close = 1e-4 if one[1] == torch.float32 else 2e-2
        assert (a - b).norm() <= close * b.norm(), (one[:2], a, b)
print("whole")
"""
COMPILES = """
import triton, triton.language
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from prisma.sparse import gpu_kernels
gpu_kernels.tl = triton.language
LISTS = {"at": "*i64", "columns": "*i64", "offsets": "*i64", "counts": "*i32", "upper": "*i32", "n": "i64"}
SIZES = {"m": "i32", "k": "i32", "d": "i32"}
for name, constants in (
    ("_top", {"by_size": True, "block": 512}), ("_count", {"first": True, "block": 512}), ("_above", {"block": 512}),
    ("_count", {"first": False, "block": 512}), ("_sum", {"part": 128, "together": 32}),
    ("_dot", {"part": 128, "together": 32}),
):
    for dtype in ("*fp32", "*bf16"):
        kernel = triton.jit(getattr(gpu_kernels, name))
        types = LISTS | SIZES | dict.fromkeys(constants, "constexpr")
        types = {x: "*i64" if (name, x) == ("_above", "rows") else types.get(x, dtype) for x in kernel.arg_names}
        triton.compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", 90, 32))
print("whole")
"""


@HAS_TRITON
def test_what_they_compute_is_what_torch_does_and_losses_with_them_are_those_of_a_cpu() -> None:
    """In one process, since each loads torch and the interpreter anew."""
    assert said(PROGRAM + BATCHES + PRODUCTS + STEPS, TRITON_INTERPRET="1") == 4 * "whole\n"


@HAS_TRITON
def test_they_compile_for_a_gpu_that_is_not_here() -> None:
    """The interpreter takes more than the compiler does."""
    assert said(COMPILES, TRITON_DEFAULT_FP_FUSION="1") == "whole\n"


def said(program: str, **more: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_are_for_tensors_of_a_gpu_in_float32_at_most() -> None:
    """In float64, numbers that float32 cannot tell apart would tie."""

    class OnGpu:
        is_cuda, shape = True, (4, 1000)

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

    found = [fits(OnGpu(dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float16)]  # type: ignore[arg-type]
    assert found == [find_spec("triton") is not None] * 3
    assert not fits(OnGpu(torch.float64)) and not fits(torch.zeros(4, 1000))  # type: ignore[arg-type]
