"""The sparse operations of a GPU, in Triton: selections, and products with codes as lists of entries.

No shape depends on a number, so nothing waits for the host, and steps of training can be captured as a graph: what has
no fixed length has room for the most there can be. Triton comes with torch where torch has CUDA, but on Windows; there,
and in float64, codes are matrices. Sums are taken in float32, always in the same order.

Shapes: N row, M column of what is selected from, D width, E entry, S segment.
"""

from __future__ import annotations  # Triton's types are names that exist once it is imported

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

tl: Any = None
"""Triton's language, once the kernels are compiled: importing it takes time on machines without a GPU."""
LARGEST_ROW = 65_536  # latents that fit into the registers of a program
SMALLEST_ROW = 512  # below, torch's own way costs little, and compiling takes seconds
PART, TOGETHER = 128, 32  # columns of a matrix that a program has, and entries that it takes at once
BLOCK = 4096  # numbers of a long list that a program has


def fits(x: Tensor) -> bool:
    """Whether the kernels are for this tensor: where it is decides, and whether float32 holds its numbers."""
    exact = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.is_cuda and exact and find_spec("triton") is not None


def top_columns(p: Tensor, k: int, by_size: bool = False) -> Tensor:
    """[N, k]: where the k largest of each row of `p` [N, M] are, in the order of the columns; of equals, the first.

    NaN is larger than all numbers, as in torch. The k-th largest number is found bit by bit, without sorting, while a
    row stays in registers.
    """
    columns = torch.empty(len(p), k, dtype=torch.int64, device=p.device)
    if not len(p):  # a GPU starts no program for no rows
        return columns
    p = p.contiguous()
    block = _power(p.shape[1])
    _run(_top, (len(p),), 16 if block > 8192 else 8, p, columns, p.shape[1], k, by_size, block)
    return columns


def batch_threshold(p: Tensor, kept: int) -> Tensor:
    """The (kept + 1)-th largest of all numbers of `p` [N, M], or 0 if it is not above 0.

    The upper half of its bits is found by counting how many numbers have each upper half, then the lower among these.
    """
    upper, rest = _holding(_tally(p, None), torch.full((1,), kept, device=p.device))
    lower, _ = _holding(_tally(p, upper.int()), rest)
    found = ((upper.clamp_min(0) << 16) + lower.clamp_min(0)).int().view(torch.float32)[0]
    return torch.where(upper[0] < 0, 0.0, found).to(p.dtype)


def _tally(p: Tensor, upper: Tensor | None) -> Tensor:
    """[65536]: numbers above 0 with each upper half of their bits, or, of those with the `upper` half, each lower."""
    counts = torch.zeros(1 << 16, dtype=torch.int32, device=p.device)
    p, n = p.contiguous(), p.numel()
    _run(_count, (-(-n // BLOCK),), 8, p, counts if upper is None else upper, counts, n, upper is None, BLOCK)
    return counts


def _holding(counts: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """(bin, rank in it), [1] each, of what has `rank` larger ones; bin -1 if there are not so many."""
    from_here = counts.flip(0).cumsum(0).flip(0)
    held_by = (from_here > rank).sum(0, keepdim=True) - 1
    return held_by, rank - F.pad(from_here, (0, 1)).index_select(0, held_by + 1)


def places_above(p: Tensor, threshold: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor]:
    """(columns [room], rows [room], offsets [N + 1]) of what is above the threshold in `p` [N, M], row by row.

    Places that are left are row 0 and column 0, after the last offset.
    """
    p = p.contiguous()
    offsets = F.pad((p > threshold).sum(1).cumsum(0), (1, 0))
    columns, rows = torch.zeros(2, room, dtype=torch.int64, device=p.device)
    block = min(_power(p.shape[1]), BLOCK)
    _run(_above, (len(p),), 8, p, threshold, offsets, columns, rows, p.shape[1], block)
    return columns, rows, offsets


def segment_sums(values: Tensor, at: Tensor, offsets: Tensor, matrix: Tensor) -> Tensor:
    """[S, D]: for each segment the sum of the rows `at` [E] of a matrix [., D], times `values` [E].

    `offsets` [S + 1] say where the entries of each segment begin. It is a code times a matrix, where segments are rows.
    """
    matrix, d = matrix.contiguous(), matrix.shape[1]
    out = torch.empty(len(offsets) - 1, d, dtype=matrix.dtype, device=matrix.device)
    if len(out):
        _run(_sum, (len(out), -(-d // PART)), 4, values, at, offsets, matrix, out, d, PART, TOGETHER)
    return out


def entry_dots(rows: Tensor, matrix: Tensor, at: Tensor, offsets: Tensor) -> Tensor:
    """[E]: the dot product of each entry's row of `rows` [N, D] with the row `at` [E] of a matrix; 0 after the last.

    `offsets` [N + 1] say where the entries of each row begin.
    """
    rows, matrix = rows.contiguous(), matrix.contiguous()
    out = torch.zeros(len(at), dtype=matrix.dtype, device=matrix.device)
    if len(rows):
        _run(_dot, (len(rows),), 4, rows, matrix, at, offsets, out, rows.shape[1], PART, TOGETHER)
    return out


def _run(kernel: Callable[..., None], programs: tuple[int, ...], warps: int, first: Tensor, *others: Any) -> None:
    """Start the programs of a kernel on the device of its first tensor."""
    with torch.cuda.device_of(first):
        _compiled(kernel)[programs](first, *others, num_warps=warps)


def _power(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()


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


def _count(p, upper, counts, n, first: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some numbers: how many above 0 have each upper half of bits, or a given upper half and each lower."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    x = tl.load(p + at, mask=at < n, other=0.0).to(tl.float32)
    bits = tl.where(x != x, 0x7FFFFFFF, x.to(tl.int32, bitcast=True))
    if first:
        tl.atomic_add(counts + (bits >> 16), 1, mask=bits > 0, sem="relaxed")
    else:
        here = (bits > 0) & ((bits >> 16) == tl.load(upper))
        tl.atomic_add(counts + (bits & 0xFFFF), 1, mask=here, sem="relaxed")


def _above(p, threshold, offsets, columns, rows, m, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: the columns that are above a threshold, in their order."""
    row = tl.program_id(0).to(tl.int64)
    limit = tl.load(threshold).to(tl.float32)
    place = tl.load(offsets + row)
    for start in range(0, m, block):
        at = start + tl.arange(0, block)
        keep = (tl.load(p + row * m + at, mask=at < m, other=0.0).to(tl.float32) > limit) & (at < m)
        spot = place + tl.cumsum(keep.to(tl.int32), 0) - 1
        tl.store(columns + spot, at.to(tl.int64), mask=keep)
        tl.store(rows + spot, row + tl.zeros_like(spot), mask=keep)
        place += tl.sum(keep.to(tl.int32), axis=0)


def _sum(values, at, offsets, matrix, out, d, part: tl.constexpr, together: tl.constexpr):  # type: ignore[no-untyped-def]
    """One segment and some columns of the matrix: its entries, some at a time."""
    segment = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * part + tl.arange(0, part)
    last = tl.load(offsets + segment + 1)
    total = tl.zeros((part,), tl.float32)
    for start in range(tl.load(offsets + segment), last, together):
        entry = start + tl.arange(0, together)
        value = tl.load(values + entry, mask=entry < last, other=0.0).to(tl.float32)
        row = tl.load(at + entry, mask=entry < last, other=0)
        here = (entry < last)[:, None] & (column < d)[None, :]
        rows = tl.load(matrix + row[:, None] * d + column[None, :], mask=here, other=0.0).to(tl.float32)
        total += tl.sum(value[:, None] * rows, axis=0)
    tl.store(out + segment * d + column, total, mask=column < d)


def _dot(rows, matrix, at, offsets, out, d, part: tl.constexpr, together: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: its product with the row of the matrix of each of its entries, some at a time."""
    row = tl.program_id(0).to(tl.int64)
    last = tl.load(offsets + row + 1)
    for start in range(tl.load(offsets + row), last, together):
        entry = start + tl.arange(0, together)
        other = tl.load(at + entry, mask=entry < last, other=0)
        total = tl.zeros((together,), tl.float32)
        for first in range(0, d, part):
            column = first + tl.arange(0, part)
            own = tl.load(rows + row * d + column, mask=column < d, other=0.0).to(tl.float32)
            here = (entry < last)[:, None] & (column < d)[None, :]
            theirs = tl.load(matrix + other[:, None] * d + column[None, :], mask=here, other=0.0).to(tl.float32)
            total += tl.sum(own[None, :] * theirs, axis=1)
        tl.store(out + entry, total, mask=entry < last)


@cache
def _compiled(kernel: Callable[..., None]) -> Any:
    """A kernel, which Triton compiles at its first call."""
    global tl
    import triton
    import triton.language

    tl = triton.language
    return triton.jit(kernel)
