"""The sparse operations of coders: which latents are kept, and products with codes that are nearly all zero.

Two ways lead to every number: matrices, and lists of the entries that are not zero. Codes are lists on a CPU, and on a
GPU where the kernels of `gpu_kernels` are for them (`listed`); `SPARSE_ABOVE` says from which sparsity on the encoder's
gradient comes from a list too. The tests compare the two. What is done depends on where a tensor is, never on what can
be imported. Away from the CPU no shape depends on a number, so that nothing waits for the host.

Shapes: N token, D width, M latents, E entries that are not zero.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.sparse.gpu_kernels import (
    LARGEST_ROW,
    SMALLEST_ROW,
    batch_threshold,
    entry_dots,
    fits,
    places_above,
    segment_sums,
    top_columns,
)

SPARSE_ABOVE = 50
"""From this many latents for each active one, on a CPU, the encoder's gradient comes from the active ones alone."""


def keep_largest(p: Tensor, k: int, by: Tensor) -> Tensor:
    """`p` [N, m] with all but the k entries of each row that are largest by `by` set to zero."""
    places = by.topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(p).scatter(-1, places, p.gather(-1, places))


def largest_of_groups(p: Tensor, k: int) -> Tensor:
    """`p` [N, m] with all but the largest of each of k groups of neighbours set to zero."""
    groups = p.unflatten(-1, (k, -1))
    return keep_largest(groups, 1, groups).flatten(-2)


def top_threshold(p: Tensor, k: int) -> Tensor:
    """The number above which k entries per row of `p` [N, m] lie on average, all rows together, but never below 0.

    It is found without sorting: it lies between the last entry that is kept and the first that is not.
    """
    flat = p.detach().flatten()
    kept = k * (flat.numel() // p.shape[-1])
    if kept >= flat.numel():
        return flat.new_zeros(())
    if on_cpu(flat) and flat.dtype in (torch.float32, torch.float64):
        values = flat.numpy()
        values = values[values > 0]
        if len(values) <= kept:
            return flat.new_zeros(())
        return flat.new_tensor(np.partition(values, len(values) - kept - 1)[len(values) - kept - 1])
    if fits(p):
        return batch_threshold(flat.view(-1, p.shape[-1]), kept)
    return flat.topk(kept + 1, sorted=False).values.min().clamp_min(0)


def on_cpu(x: Tensor) -> bool:
    """Whether shapes may depend on numbers, since nothing has to wait for them."""
    return x.device.type == "cpu"


def listed(x: Tensor, width: int) -> bool:
    """Whether a code of this many latents is a list where x is; else it is a matrix."""
    return on_cpu(x) or (fits(x) and width >= SMALLEST_ROW)


@dataclass(frozen=True)
class Places:
    """Where the entries of a code [N, m] are that are not zero, row by row.

    Attributes:
        columns, rows: [E], int64.
        offsets: [N + 1]: where the entries of each row begin. After the last, there may be room that no entry took: it
            is at row 0 and column 0, and has the value 0.
        width: m.
    """

    columns: Tensor
    rows: Tensor
    offsets: Tensor
    width: int

    @classmethod
    def even(cls, columns: Tensor, width: int) -> "Places":
        """Those of columns [N, k], as many in each row."""
        offsets = torch.arange(0, columns.numel() + 1, columns.shape[1], device=columns.device)
        rows = torch.arange(columns.numel(), device=columns.device) // columns.shape[1]
        return cls(columns.flatten(), rows, offsets, width)

    @classmethod
    def of(cls, on: Tensor) -> "Places":
        """Those of a mask [N, m], on a CPU."""
        rows, columns = on.nonzero(as_tuple=True)
        return cls(columns, rows, F.pad(on.sum(1).cumsum(0), (1, 0)), on.shape[1])

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor]:
        """(order [E], which brings the entries of each latent together, rows ascending; where each begins [m + 1])."""
        small = torch.int16 if self.width < 2**15 else torch.int32  # fewer bits are sorted sooner
        columns, order = self.columns.to(small).sort(stable=True)
        latents = torch.arange(self.width + 1, dtype=small, device=columns.device)
        return order, torch.searchsorted(columns, latents)

    def take(self, p: Tensor) -> Tensor:
        """[E]: the numbers of `p` [N, m] there."""
        values = p[self.rows, self.columns]
        if on_cpu(p):
            return values
        return torch.where(torch.arange(len(values), device=p.device) < self.offsets[-1:], values, 0.0)


@dataclass(frozen=True)
class Entries:
    """A code [N, m] as the list of its entries that are not zero."""

    values: Tensor  # [E]
    places: Places

    @classmethod
    def of(cls, z: Tensor) -> "Entries":
        """Those of a code [N, m], on a CPU."""
        places = Places.of(z != 0)
        return cls(places.take(z), places)

    @property
    def count(self) -> Tensor:
        """How many there are."""
        return (self.values.detach() != 0).sum()

    @property
    def active(self) -> Tensor:
        """[m], bool: which latents are in it."""
        on, at = (self.values.detach() != 0).float(), self.places
        return torch.zeros(at.width, device=on.device).index_add_(0, at.columns, on) > 0

    def between(self, low: int, high: int) -> "Entries":
        """Those of the latents from `low` to before `high`."""
        at = self.places
        here = (at.columns >= low) & (at.columns < high)
        if not on_cpu(here):
            return Entries(torch.where(here, self.values, 0.0), at)
        before = F.pad(here.long().cumsum(0), (1, 0))
        return Entries(self.values[here], Places(at.columns[here], at.rows[here], before[at.offsets], at.width))

    def times(self, weight: Tensor) -> Tensor:
        """The code times a matrix [m, D]: [N, D], in the precision of the matrix."""
        values, at = self.values.to(weight.dtype), self.places
        if not on_cpu(weight):
            product: Tensor = _Times.apply(values, weight, at)
            return product
        return _summed(values, at.columns, at.offsets, weight)


@dataclass(frozen=True)
class Matrix:
    """A code [N, m] as a matrix, of which some latents are meant."""

    values: Tensor
    low: int = 0
    high: int | None = None

    @property
    def count(self) -> Tensor:
        """How many entries are not zero."""
        return (self.values.detach() != 0).sum()

    @property
    def active(self) -> Tensor:
        """[m], bool: which latents have them."""
        return (self.values.detach() != 0).any(0)

    def between(self, low: int, high: int) -> "Matrix":
        """That of the latents from `low` to before `high`."""
        return Matrix(self.values, low, high)

    def times(self, weight: Tensor) -> Tensor:
        """The code times a matrix [m, D]: [N, D], in the precision of the matrix."""
        some = slice(self.low, self.high)
        return self.values[:, some].to(weight.dtype) @ weight[some]


def largest(p: Tensor, k: int, by_size: bool = False) -> Places:
    """Where the k largest of each row of `p` [N, m] are."""
    if fits(p) and SMALLEST_ROW <= p.shape[1] <= LARGEST_ROW:
        return Places.even(top_columns(p, k, by_size), p.shape[1])
    return Places.even((p.abs() if by_size else p).topk(k, dim=-1, sorted=False).indices, p.shape[1])


def chosen_places(p: Tensor, k: int, kind: str) -> Places:
    """Where the latents are that a kind of coder keeps in training, of pre-activations [N, m]."""
    n, m = p.shape
    if kind in ("batchtopk", "matryoshka"):
        theta = top_threshold(p, k)
        return Places.of(p > theta) if on_cpu(p) else Places(*places_above(p, theta, n * k), m)
    if kind == "groupmax":
        groups = p.unflatten(-1, (k, -1))
        return Places.even(groups.argmax(-1) + torch.arange(k, device=p.device) * groups.shape[-1], m)
    return largest(p, k, by_size=kind == "abstopk")


def _summed(values: Tensor, at: Tensor, offsets: Tensor, matrix: Tensor) -> Tensor:
    """For each segment of a list the sum of the rows `at` of a matrix, times `values`: [segment, D]."""
    if not on_cpu(matrix):
        return segment_sums(values, at, offsets, matrix)
    return F.embedding_bag(at, matrix, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


def _transposed_times(values: Tensor, at: Places, x: Tensor) -> Tensor:
    """A code's transpose times x [N, D]: [m, D]. The entries are brought into the order of their latents first."""
    order, bounds = at.by_latent
    return _summed(values[order], at.rows[order], bounds, x)


class _Times(torch.autograd.Function):
    """A list of entries times a matrix on a GPU."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, at: Places) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.at = at
        return segment_sums(values, at.columns, at.offsets, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (values, weight), at = ctx.saved_tensors, ctx.at
        of_values = entry_dots(grad, weight, at.columns, at.offsets) if ctx.needs_input_grad[0] else None
        of_weight = _transposed_times(values, at, grad) if ctx.needs_input_grad[1] else None
        return of_values, of_weight, None


class _Encoded(torch.autograd.Function):
    """(x - shift) W + b at the entries that are kept. Neither the matrix [N, m] nor its gradient is kept afterwards."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, k: int, kind: str
    ) -> tuple[Tensor, Places]:
        x = x if shift is None else x - shift
        p = torch.addmm(bias, x, weight)
        ctx.at = at = chosen_places(p, k, kind)
        ctx.save_for_backward(x, weight)
        ctx.from_list = not on_cpu(x) or weight.shape[1] > SPARSE_ABOVE * k
        return at.take(p), at

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (x, weight), at = ctx.saved_tensors, ctx.at
        grad, m = grad.to(weight.dtype), weight.shape[1]  # in a lower precision under autocast
        if ctx.from_list:
            of_weight = _transposed_times(grad, at, x).T
        else:
            of_weight = x.T @ torch.zeros(len(x), m, dtype=grad.dtype).index_put_((at.rows, at.columns), grad)
        if on_cpu(x):
            of_bias = torch.zeros(m, dtype=grad.dtype).index_add_(0, at.columns, grad)
        else:  # where that adds in any order
            of_bias = _transposed_times(grad, at, torch.ones_like(x[:, :1]))[:, 0]
        of_x = _summed(grad, at.columns, at.offsets, weight.T.contiguous()) if ctx.needs_input_grad[0] else None
        of_shift = -(weight @ of_bias) if ctx.needs_input_grad[1] else None  # every token has the same
        return of_x, of_shift, of_weight, of_bias, None, None


def encoded(x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, k: int, kind: str) -> Entries:
    """The pre-activations [N, m] of inputs [N, d] less a shift [d], where a kind of coder keeps them in training."""
    values, at = _Encoded.apply(x, shift, weight, bias, k, kind)
    return Entries(values if kind == "abstopk" else values.relu(), at)
