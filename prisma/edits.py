"""Edits: small frozen values that describe a change to one intermediate.

`Zero().at(head=3)`, `Set(other).at(token=0)`, `Add(direction)`: comparable, printable, picklable, no closures, so
that `torch.compile` sees them and two runs can be compared. An edit is a function of a tensor and its axis names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from prisma.errors import PrismaError

Index = int | slice | Sequence[int]
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        alike = isinstance(a, Tensor) and isinstance(b, Tensor) and (a.device, a.dtype) == (b.device, b.dtype)
        return alike and torch.equal(a, b)
    return bool(a == b)


def _show(x: Any) -> str:
    return f"Tensor{list(x.shape)}" if isinstance(x, Tensor) else repr(x)


def _key(x: Any) -> Any:
    """A hashable key that is the same for equal values."""
    if isinstance(x, Tensor):
        return tuple(x.shape)
    if isinstance(x, slice):
        return (x.start, x.stop, x.step)
    return tuple(_key(item) for item in x) if isinstance(x, tuple | list) else x


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """Base of all edits: `edit(x, axes)` returns the value that replaces `x`, of the same shape."""

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        raise NotImplementedError

    def at(self, **where: Index) -> "Edit":
        """The same edit on part of the tensor only: `.at(head=3, token=[0, 5])`, by the site's axis names."""
        return At(self, tuple((axis, _frozen(axis, where[axis])) for axis in sorted(where)))

    def where(self, mask: Tensor) -> "Edit":
        """The same edit where a boolean tensor, broadcastable to the site, is True."""
        return Where(self, mask)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            _same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    def __hash__(self) -> int:
        return hash((type(self), *(_key(getattr(self, f.name)) for f in fields(self))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_show(getattr(self, f.name)) for f in fields(self))})"


@dataclass(frozen=True, eq=False, repr=False)
class Set(Edit):
    """Replace by `value` (broadcastable to the site): activation patching."""

    value: Tensor | float

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return _fitted(self.value, x).expand_as(x)


@dataclass(frozen=True, eq=False, repr=False)
class Add(Edit):
    """Add `value` (broadcastable to the site): steering."""

    value: Tensor | float

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return x + _fitted(self.value, x)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Edit):
    """Multiply by `factor`."""

    factor: Tensor | float

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return x * _fitted(self.factor, x)


@dataclass(frozen=True, eq=False, repr=False)
class Zero(Edit):
    """Zero ablation."""

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True, eq=False, repr=False)
class Mean(Edit):
    """Mean ablation: replace by the mean over the named axes, within the same call (default: over its images)."""

    over: tuple[str, ...] = ("batch",)

    def __post_init__(self) -> None:
        if isinstance(self.over, str) or not self.over:
            raise PrismaError(f"expected Mean(over=...) to be a tuple of one axis name or more; found {self.over!r}")

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        dims = [_dim(axis, axes) for axis in self.over]
        if all(x.shape[dim] == 1 for dim in dims):
            raise PrismaError(
                f"expected more than one value to average over {' and '.join(self.over)}; found one in this call"
            )
        return x.mean(dims, keepdim=True).expand_as(x)


@dataclass(frozen=True, eq=False, repr=False)
class Resample(Edit):
    """Resample ablation: image i gets the value of image `order[i]` of the same call."""

    order: tuple[int, ...]

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        if len(self.order) != x.shape[0]:
            raise PrismaError(f"expected one Resample index per image, {x.shape[0]}; found {len(self.order)}")
        if outside := [i for i in self.order if not 0 <= i < len(x)]:
            raise PrismaError(f"expected Resample indices from 0 to {len(x) - 1}; found {outside[0]}")
        return x[list(self.order)]


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Edit):
    """Any function of a tensor, such as a sparse coder or a projection. `as_edit` turns a plain callable into this.

    The function gets a copy and may work in place, because sites share memory with each other and with the caller.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        y = self.function(x.clone())
        if not isinstance(y, Tensor) or y.shape != x.shape:
            found = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise PrismaError(
                f"expected an edit that keeps the shape {list(x.shape)}; found {self!r}, which returned {found}"
            )
        return y


@dataclass(frozen=True, eq=False, repr=False)
class Where(Edit):
    """`edit` where `mask` (broadcastable to the site) is True, the value itself elsewhere."""

    edit: Edit
    mask: Tensor

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        if self.mask.dtype != torch.bool:
            raise PrismaError(f"expected a boolean mask; found {self.mask.dtype}")
        return torch.where(_expect_fits(self.mask, x).to(x.device), self.edit(x, axes), x)


@dataclass(frozen=True, eq=False, repr=False)
class At(Edit):
    """`edit` on the given indices of the named axes, the value itself elsewhere."""

    edit: Edit
    indices: tuple[tuple[str, int | slice | tuple[int, ...]], ...]

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        mask = torch.ones((), dtype=torch.bool, device=x.device)
        for axis, index in self.indices:
            dim = _dim(axis, axes)
            mask = mask & _along(dim, x, _selected(axis, index, x.shape[dim], x.device))
        return torch.where(mask, self.edit(x, axes), x)


def _dim(axis: str, axes: tuple[str, ...]) -> int:
    if axis not in axes:
        raise PrismaError(f"expected an axis of this site ({', '.join(axes)}); found {axis!r}")
    return axes.index(axis)


def _fitted(value: Tensor | float, x: Tensor) -> Tensor:
    """A number or tensor in the type and on the device of `x`, if it broadcasts to the shape of `x`."""
    return _expect_fits(torch.as_tensor(value, dtype=x.dtype, device=x.device), x)


def _expect_fits(value: Tensor, x: Tensor) -> Tensor:
    sizes = zip(reversed(value.shape), reversed(x.shape), strict=False)
    if value.ndim > x.ndim or any(size not in (1, full) for size, full in sizes):
        raise PrismaError(f"expected a tensor that broadcasts to the site's {list(x.shape)}; found {list(value.shape)}")
    return value


def _frozen(axis: str, index: Any) -> int | slice | tuple[int, ...]:
    """An index as a value, from Python, numpy and torch integers, sequences of them, or a slice."""
    if isinstance(index, slice):
        return index
    try:
        chosen = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        chosen = None
    if chosen is None or chosen.ndim > 1 or (chosen.numel() and chosen.dtype not in _WHOLE):
        raise PrismaError(
            f"expected {axis} to be one or several whole numbers, or a slice (a mask goes to .where); found {index!r}"
        )
    return tuple(chosen.tolist()) if chosen.ndim else int(chosen)


def _selected(axis: str, index: int | slice | tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """A boolean vector of length `size`, True at `index`."""
    chosen = range(size)[index] if isinstance(index, slice) else index
    wanted = [chosen] if isinstance(chosen, int) else list(chosen)
    outside = [i for i in wanted if not -size <= i < size]
    if outside:
        raise PrismaError(f"expected {axis} from 0 to {size - 1} at this site; found {outside[0]}")
    mask = torch.zeros(size, dtype=torch.bool, device=device)
    for i in wanted:
        mask[i] = True
    return mask


def _along(dim: int, x: Tensor, vector: Tensor) -> Tensor:
    """A vector along one dimension of `x`, broadcastable to `x`."""
    return vector.view([-1 if d == dim else 1 for d in range(x.ndim)])


def as_edit(edit: Any) -> tuple[Edit, ...]:
    """An edit, a plain callable, or a sequence of these, as a tuple of edits that are applied in order."""
    if isinstance(edit, Edit):
        return (edit,)
    if callable(edit) and not isinstance(edit, type):  # `Zero` for `Zero()` is a slip
        return (Apply(edit),)
    if isinstance(edit, list | tuple):
        return tuple(e for item in edit for e in as_edit(item))
    raise PrismaError(f"expected an Edit, a function of a tensor, or a list of these; found {_show(edit)}")
