"""Two selections that torch does slowly on a GPU, in Triton: the k largest of each row, and a threshold for a batch.

Both find a number bit by bit, without sorting. The numbers of a row stay in registers; those of a batch are read three
times, to count how many begin with which bits. Triton comes with torch where torch has CUDA, but on Windows; there
`torch.topk` does the same.
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
BLOCK = 4096
PASSES = ((20, 11), (9, 11), (0, 9))
"""(lowest bit, number of bits) that each reading of a batch counts: together all 31 of a positive number."""


def fits(p: Tensor) -> bool:
    """Whether the kernels are for this tensor: where it is decides, and how wide its rows are."""
    return p.is_cuda and p.shape[-1] <= LARGEST_ROW and find_spec("triton") is not None


def top_columns(p: Tensor, k: int, by_size: bool = False) -> Tensor:
    """[N, k]: where the k largest of each row of `p` [N, m] are, in the order of the columns; of equals, the first."""
    columns = torch.empty(len(p), k, dtype=torch.int64, device=p.device)
    p = p.contiguous()
    block = 1 << (p.shape[1] - 1).bit_length()
    _compiled()["top"][(len(p),)](p, columns, p.shape[1], k, by_size, block, num_warps=16 if block > 8192 else 8)
    return columns


def batch_threshold(p: Tensor, kept: int) -> Tensor:
    """The (kept + 1)-th largest of all numbers of `p`, or 0 if it is not above 0."""
    flat = p.detach().contiguous().flatten()
    prefix, left = (torch.full((1,), n, dtype=torch.int32, device=p.device) for n in (0, kept + 1))
    found = torch.ones(1, dtype=torch.bool, device=p.device)
    programs = min(-(-flat.numel() // BLOCK), 1024)
    for low, bits in PASSES:
        counts = torch.zeros(2 << bits, dtype=torch.int32, device=p.device)
        _compiled()["count"][(programs,)](flat, counts, prefix, flat.numel(), low, bits, BLOCK, programs)
        from_top = counts[: 1 << bits].flip(0).cumsum(0).flip(0)  # [bin]: how many are in it or above
        place = (from_top >= left).sum() - 1
        found &= place >= 0
        above = torch.cat([from_top, from_top.new_zeros(1)])[place.clamp(min=0) + 1]
        left, prefix = (left - above).to(torch.int32), ((prefix << bits) | place.clamp(min=0)).to(torch.int32)
    return torch.where(found, prefix.view(torch.float32), 0.0).to(p.dtype)[0]


def _top(p, columns, m, k, by_size: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: the bits of its k-th largest number, and where those above it are."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    here = at < m
    x = tl.load(p + row * m + at, mask=here, other=0.0).to(tl.float32)
    if by_size:
        x = tl.abs(x)
    bits = x.to(tl.int32, bitcast=True)
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


def _count(p, counts, prefix, n, low: tl.constexpr, bits: tl.constexpr, block: tl.constexpr, programs):  # type: ignore[no-untyped-def]
    """How many positive numbers begin with the prefix and have which next bits; the last bins count all others."""
    start = tl.load(prefix)
    found = tl.zeros([2 << bits], dtype=tl.int32)
    first = tl.program_id(0).to(tl.int64) * block
    for begin in range(first, n, programs * block):
        at = begin + tl.arange(0, block)
        x = tl.load(p + at, mask=at < n, other=0.0).to(tl.float32)
        number = x.to(tl.int32, bitcast=True)
        mine = (x > 0) & ((number >> (low + bits)) == start)
        found += tl.histogram(tl.where(mine, (number >> low) & ((1 << bits) - 1), 1 << bits), 2 << bits)
    tl.atomic_add(counts + tl.arange(0, 2 << bits), found)


@cache
def _compiled() -> dict[str, Any]:
    """The kernels, which Triton compiles at their first call."""
    global tl
    import triton
    import triton.language

    tl = triton.language
    return {"top": triton.jit(_top), "count": triton.jit(_count)}
