"""The k largest of each row on a GPU, in Triton, and with them the threshold of a batch.

The k-th largest number is found bit by bit, without sorting, while a row stays in registers. Triton comes with torch
where torch has CUDA, but on Windows; there `torch.topk` does the same.
"""

from __future__ import annotations  # Triton's types are names that exist once it is imported

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

tl: Any = None
"""Triton's language, once the kernels are compiled: importing it takes time on machines without a GPU."""
LARGEST_ROW = 65_536  # latents that fit into the registers of a program
SMALLEST_ROW = 512  # below, torch's own way costs little, and compiling takes seconds
SPREAD = 8
"""So many times the numbers that a row keeps on average are looked at for the threshold of a batch."""


def fits(p: Tensor) -> bool:
    """Whether the kernels are for this tensor: where it is decides, its width, and whether float32 holds it."""
    exact = p.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return p.is_cuda and exact and SMALLEST_ROW <= p.shape[-1] <= LARGEST_ROW and find_spec("triton") is not None


def top_columns(p: Tensor, k: int, by_size: bool = False) -> Tensor:
    """[N, k]: where the k largest of each row of `p` [N, m] are, in the order of the columns; of equals, the first.

    NaN is larger than all numbers, as in torch.
    """
    columns = torch.empty(len(p), k, dtype=torch.int64, device=p.device)
    if not len(p):  # a GPU starts no program for no rows
        return columns
    p = p.contiguous()
    block = 1 << (p.shape[1] - 1).bit_length()
    _compiled()[(len(p),)](p, columns, p.shape[1], k, by_size, block, num_warps=16 if block > 8192 else 8)
    return columns


def batch_threshold(p: Tensor, kept: int) -> Tensor:
    """The (kept + 1)-th largest of all numbers of `p` [N, m], or 0 if it is not above 0.

    It is looked for among the largest of each row. Where a row has more of the kept ones than were looked at, which is
    rare, all numbers are sorted.
    """
    looked_at = min(SPREAD * -(-(kept + 1) // len(p)), p.shape[1])
    largest = p.gather(1, top_columns(p, looked_at))
    found = largest.flatten().topk(kept + 1, sorted=False).values.min()
    if looked_at < p.shape[1] and (largest.amin(1) > found).any():
        found = p.flatten().topk(kept + 1, sorted=False).values.min()
    return found.clamp_min(0)


def _top(p, columns, m, k, by_size: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: the bits of its k-th largest number, and where those above it are."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    here = at < m
    x = tl.load(p + row * m + at, mask=here, other=0.0).to(tl.float32)
    if by_size:
        x = tl.abs(x)
    bits = tl.where(x != x, 0x7FFFFFFF, x.to(tl.int32, bitcast=True))
    key = tl.where(here, bits ^ ((bits >> 31) & 0x7FFFFFFF), -2147483648)  # whole numbers in the order of the floats
    kth = tl.where(tl.sum((key >= 0).to(tl.int32), axis=0) >= k, 0, -2147483648)
    for i in range(31):
        larger = kth + (1 << (30 - i))
        kth = tl.where(tl.sum((key >= larger).to(tl.int32), axis=0) >= k, larger, kth)
    above = key > kth
    level = (key == kth) & here
    room = k - tl.sum(above.to(tl.int32), axis=0)
    keep = above | (level & (tl.cumsum(level.to(tl.int32), 0) <= room))
    place = tl.cumsum(keep.to(tl.int32), 0) - 1
    tl.store(columns + row * k + place, at.to(tl.int64), mask=keep)


@cache
def _compiled() -> Any:
    """The kernel, which Triton compiles at its first call."""
    global tl
    import triton
    import triton.language

    tl = triton.language
    return triton.jit(_top)
