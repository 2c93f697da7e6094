"""The sparse operations of coders: which latents are kept, and products with codes that are nearly all zero.

Two ways lead to every number: dense matrices, and lists of the entries that are not zero. `SPARSE_ABOVE` says from
which sparsity on the lists pay; the tests compare the two. What is done depends on where a tensor is, never on what can
be imported.

Shapes: N token, D width, M latents, E entries that are not zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.sparse.gpu_kernels import batch_threshold, fits, top_columns

SPARSE_ABOVE = 50
"""From this many latents for each active one, on a CPU, the encoder's gradient comes from the active ones alone."""
PART = 65_536  # entries whose directions are in memory together


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
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        values = flat.numpy()
        values = values[values > 0]
        if len(values) <= kept:
            return flat.new_zeros(())
        return flat.new_tensor(np.partition(values, len(values) - kept - 1)[len(values) - kept - 1])
    if fits(p):
        return batch_threshold(p.detach().flatten(0, -2), kept)
    return flat.topk(kept + 1, sorted=False).values.min().clamp_min(0)


@dataclass(frozen=True)
class Entries:
    """The entries of a code [N, m] that are not zero, row by row."""

    values: Tensor  # [E]
    columns: Tensor  # [E], int64
    offsets: Tensor  # [N + 1]: where the entries of each row begin

    @property
    def rows(self) -> Tensor:
        """[E]: the row of each entry."""
        counts = self.offsets.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def between(self, low: int, high: int) -> "Entries":
        """Those of the latents from `low` to before `high`."""
        here = (self.columns >= low) & (self.columns < high)
        before = F.pad(here.long().cumsum(0), (1, 0))
        return Entries(self.values[here], self.columns[here], before[self.offsets])

    def times(self, weight: Tensor) -> Tensor:
        """The code times a matrix [m, D]: [N, D], in the precision of the matrix."""
        values = self.values.to(weight.dtype)
        if weight.is_cuda:
            product: Tensor = _Times.apply(values, weight, self.columns, self.offsets)
            return product
        return F.embedding_bag(
            self.columns, weight, self.offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )

    @classmethod
    def of(cls, z: Tensor) -> "Entries":
        """Those of a code [N, m]."""
        on = z != 0
        rows, columns = on.nonzero(as_tuple=True)
        return cls(z[rows, columns], columns, F.pad(on.sum(1).cumsum(0), (1, 0)))


def chosen_entries(p: Tensor, k: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """(columns, offsets, rows) of the latents of each row that a kind of coder keeps in training."""
    n = p.shape[0]
    if kind in ("batchtopk", "matryoshka"):
        active = p > top_threshold(p, k)
        rows, columns = active.nonzero(as_tuple=True)
        return columns, F.pad(active.sum(1).cumsum(0), (1, 0)), rows
    if kind == "groupmax":
        groups = p.unflatten(-1, (k, -1))
        columns = groups.argmax(-1) + torch.arange(k, device=p.device) * groups.shape[-1]
    elif fits(p):
        columns = top_columns(p, k, by_size=kind == "abstopk")
    else:
        columns = (p.abs() if kind == "abstopk" else p).topk(k, dim=-1, sorted=False).indices
    offsets = torch.arange(n + 1, device=p.device) * k
    return columns.flatten(), offsets, offsets[:-1].repeat_interleave(k) // k


class _Times(torch.autograd.Function):
    """A code times a matrix on a GPU, where a product with the whole matrix is faster than sorting the entries."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, columns: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(values, weight, columns, offsets)
        return F.embedding_bag(
            columns, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, columns, offsets = ctx.saved_tensors
        rows = Entries(values, columns, offsets).rows
        of_values = of_weight = None
        if ctx.needs_input_grad[0]:
            of_values = torch.cat(
                [(grad[r] * weight[c]).sum(-1) for r, c in zip(rows.split(PART), columns.split(PART), strict=True)]
            )
        if ctx.needs_input_grad[1]:
            of_weight = _dense(values, rows, columns, len(offsets) - 1, len(weight)).T @ grad
        return of_values, of_weight, None, None


def _dense(values: Tensor, rows: Tensor, columns: Tensor, n: int, m: int) -> Tensor:
    """Entries as a matrix [n, m]."""
    return torch.zeros(n, m, dtype=values.dtype, device=values.device).index_put_((rows, columns), values)


class _Encoded(torch.autograd.Function):
    """x W + b at the entries that are kept. Neither the matrix [N, m] nor its gradient is kept for the way back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int, kind: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = torch.addmm(bias, x, weight)
        columns, offsets, rows = chosen_entries(p, k, kind)
        values = p[rows, columns]
        ctx.save_for_backward(x, weight, columns, offsets, rows)
        ctx.mark_non_differentiable(columns, offsets, rows)
        ctx.sparse = x.device.type == "cpu" and weight.shape[1] > SPARSE_ABOVE * k
        return values, columns, offsets, rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, columns, offsets, rows = ctx.saved_tensors
        grad, m = grad.to(weight.dtype), weight.shape[1]  # in a lower precision under autocast
        of_bias = torch.zeros(m, dtype=grad.dtype, device=grad.device).index_add_(0, columns, grad)
        of_x = Entries(grad, columns, offsets).times(weight.T.contiguous()) if ctx.needs_input_grad[0] else None
        if ctx.sparse:
            of_weight = _transposed_times(grad, columns, rows, x, m).T
        else:
            of_weight = x.T @ _dense(grad, rows, columns, len(x), m)
        return of_x, of_weight, of_bias, None, None


def _transposed_times(values: Tensor, columns: Tensor, rows: Tensor, x: Tensor, m: int) -> Tensor:
    """A code's transpose times x [N, D]: [m, D]. The entries are brought into the order of their latents first."""
    order = columns.argsort(stable=True)
    offsets = F.pad(columns.bincount(minlength=m).cumsum(0), (1, 0))
    return Entries(values[order], rows[order], offsets).times(x)


def encoded(x: Tensor, weight: Tensor, bias: Tensor, k: int, kind: str) -> Entries:
    """The pre-activations [N, m] of centred inputs [N, d], where a coder of this kind keeps them in training."""
    values, columns, offsets, _ = _Encoded.apply(x, weight, bias, k, kind)
    return Entries(values if kind == "abstopk" else values.relu(), columns, offsets)
