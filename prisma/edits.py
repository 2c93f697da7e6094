"""Edits: small frozen values that describe a change to one intermediate. Each is a function of a tensor and its axes.

`Zero().at(head=3)`, `Set(other).at(token=0)`, `Add(direction)`: comparable, printable, picklable, and compilable.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError, quoted
from prisma.selection import Index, Indices, Part, dim_of, frozen

_EVERYTHING, MASK = Part(), "a mask"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        alike = isinstance(a, Tensor) and isinstance(b, Tensor) and (a.device, a.dtype) == (b.device, b.dtype)
        return alike and torch.equal(a, b)
    return bool(a == b)


def _freeze(edit: "Edit", field: str, what: str) -> None:
    """Keep a field of an edit as a number or a tensor: arrays and lists of numbers are copied into one.

    Raises:
        PrismaError: it is something else.
    """
    given, word = getattr(edit, field), "mask" if field == "mask" else "value"
    object.__setattr__(edit, field, _frozen(given, what))
    object.__setattr__(edit, "_called", word if isinstance(given, Tensor) else f"torch.as_tensor({word})")


def _frozen(value: Any, what: str) -> Any:
    if not isinstance(value, Tensor | int | float):
        try:
            array = np.asarray(value)
            array = array.astype(array.dtype.newbyteorder("="))  # a copy, in this machine's order of bytes
            value = array.item() if array.ndim == 0 and array.dtype.kind in "biuf" else torch.from_numpy(array)
        except (TypeError, ValueError):
            raise PrismaError(f"expected a number or a tensor as {what}; found {_show(value)}") from None
    if isinstance(value, Tensor):
        odd = "complex numbers" if value.is_complex() else "no values (meta)" if value.is_meta else ""
        odd = odd or "true and false" * (value.dtype == torch.bool and what != MASK)
        if odd or value.layout != torch.strided:
            raise PrismaError(f"expected a dense tensor of real numbers as {what}; found {odd or value.layout}")
    elif isinstance(value, bool) or value != value:
        raise PrismaError(f"expected a number or a tensor as {what}; found {value}")
    elif isinstance(value, int) and abs(value) > torch.finfo(torch.float64).max:
        raise PrismaError(f"expected a number that a float can hold as {what}; found one of {value.bit_length()} bits")
    return value


def _show(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return f"an array {list(x.shape)} of {x.dtype}"
    return f"Tensor{list(x.shape)}" if isinstance(x, Tensor) else quoted(x)


def _key(x: Any) -> Any:
    """A hashable key that is the same for equal values."""
    if isinstance(x, Tensor):
        return tuple(x.shape)
    x = (x.start, x.stop, x.step) if isinstance(x, slice) else x
    return tuple(_key(item) for item in x) if isinstance(x, tuple | list) else x


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """Base of all edits: `edit(x, axes)` returns the value that replaces `x`, of the same shape."""

    _called = "value"  # how messages write its value as a tensor

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        raise NotImplementedError

    def expect_fits(self, model: Any, site: str) -> None:
        """Raise PrismaError if this edit, or one inside, is of another model or site. Most are of any."""
        if isinstance(inner := getattr(self, "edit", None), Edit):
            inner.expect_fits(model, site)

    def part(self, x: Tensor, axes: tuple[str, ...], part: Part) -> Tensor:
        """What a part of `x` becomes. An edit whose value depends on all of `x`, such as a mean, sees all of it."""
        return part.read(self(x, axes), axes)

    def at(self, **where: Index) -> "Edit":
        """The same edit on part of the tensor only: `.at(head=3, token=[0, 5])`, by the site's axis names.

        A value or mask inside has the axes of this part: `Set(z[:, 0, 3]).at(token=0, head=3)`; or those of the whole
        site, from which the part is taken (`prisma.selection`). A mean or a function still sees the whole site.
        Without an axis it is the edit itself.

        Raises:
            PrismaError: an axis twice, no index, or something that is no index.
        """
        if not where:
            return self
        return At(self, tuple((axis, frozen(axis, where[axis])) for axis in sorted(where)))

    def where(self, mask: Tensor) -> "Edit":
        """The same edit where a boolean tensor is True. Its axes are matched as those of a value."""
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
class _Pointwise(Edit):
    """An edit that changes every number by itself, so that a part can be changed without looking at the rest."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _freeze(self, field.name, f"the {field.name} of an edit")

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return self.part(x, axes, _EVERYTHING)


@dataclass(frozen=True, eq=False, repr=False)
class Set(_Pointwise):
    """Replace by `value`: activation patching.

    `value` is a number, or has all axes of the site (or of the part that `.at` selects), or its features alone, such as
    [d_model]. A size of 1 repeats, but not along `batch`: a value of one image for n is `value.expand(n, ...)`.
    """

    value: Tensor | float

    def part(self, x: Tensor, axes: tuple[str, ...], part: Part) -> Tensor:
        return _fitted(self, self.value, x, axes, part).expand_as(part.read(x, axes))


@dataclass(frozen=True, eq=False, repr=False)
class Add(_Pointwise):
    """Add `value`: steering. Its axes are as in `Set`; a direction [d_model] is added to every token."""

    value: Tensor | float

    def part(self, x: Tensor, axes: tuple[str, ...], part: Part) -> Tensor:
        return part.read(x, axes) + _fitted(self, self.value, x, axes, part)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(_Pointwise):
    """Multiply by `factor`, whose axes are as those of the value of `Set`."""

    factor: Tensor | float

    def part(self, x: Tensor, axes: tuple[str, ...], part: Part) -> Tensor:
        return part.read(x, axes) * _fitted(self, self.factor, x, axes, part, direction=False)


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
        if len(set(self.over)) < len(self.over):
            raise PrismaError(f"expected Mean(over=...) to name each axis once; found {self.over!r}")
        object.__setattr__(self, "over", tuple(self.over))

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        dims = [dim_of(axis, axes) for axis in self.over]
        if all(x.shape[dim] == 1 for dim in dims):
            raise PrismaError(
                f"expected more than one value to average over {' and '.join(self.over)}; found one in this call"
            )
        return x.mean(dims, keepdim=True).expand_as(x)


@dataclass(frozen=True, eq=False, repr=False)
class Resample(Edit):
    """Resample ablation: image i gets the value of image `order[i]` of the same call."""

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(chosen := frozen("order", self.order), tuple):
            raise PrismaError(f"expected Resample to have an index for each image; found {self.order!r}")
        if chosen == tuple(range(len(chosen))):
            raise PrismaError(f"expected Resample to give some image another one's value; found {_show(chosen)}")
        object.__setattr__(self, "order", chosen)

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        if len(self.order) != x.shape[0]:
            raise PrismaError(f"expected one Resample index per image, {x.shape[0]}; found {len(self.order)}")
        if outside := [i for i in self.order if not 0 <= i < len(x)]:
            raise PrismaError(f"expected Resample indices from 0 to {len(x) - 1}; found {outside[0]}")
        return x[list(self.order)]


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Edit):
    """Any function of a tensor, such as a sparse coder or a projection. `as_edit` turns a plain callable into this.

    The function gets a copy and may work in place, because sites share memory with each other and with the caller. It
    returns a tensor of the same shape and type on the same device.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        y = self.function(x.clone())
        if not isinstance(y, Tensor) or y.shape != x.shape:
            found = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise PrismaError(
                f"expected an edit that keeps the shape {list(x.shape)}; found {self!r}, which returned {found}"
            )
        if (y.dtype, y.device) != (x.dtype, x.device):
            raise PrismaError(
                f"expected an edit that keeps the type {x.dtype} and the device {x.device}; found {self!r}, which "
                f"returned {y.dtype} on {y.device}: end it with .to(x)"
            )
        return y


@dataclass(frozen=True, eq=False, repr=False)
class Where(Edit):
    """`edit` where `mask` is True, the value itself elsewhere. The mask's axes are as those of the value of `Set`."""

    edit: Edit
    mask: Tensor

    def __post_init__(self) -> None:
        _freeze(self, "mask", MASK)

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return self.part(x, axes, _EVERYTHING)

    def part(self, x: Tensor, axes: tuple[str, ...], part: Part) -> Tensor:
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool:
            found = self.mask.dtype if isinstance(self.mask, Tensor) else type(self.mask).__name__
            raise PrismaError(f"expected a boolean mask; found {found}")
        mask = part.fitted(self.mask, x, axes, direction=False, name=self._called).to(x.device)
        return torch.where(mask, self.edit.part(x, axes, part), part.read(x, axes))


@dataclass(frozen=True, eq=False, repr=False)
class At(Edit):
    """`edit` on the given indices of the named axes, the value itself elsewhere."""

    edit: Edit
    indices: Indices

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return self.part(x, axes, _EVERYTHING)

    def part(self, x: Tensor, axes: tuple[str, ...], part: Part) -> Tensor:
        here, both = part.read(x, axes), part.within(self.indices)
        return Part(self.indices).write(here, part.axes(axes), self.edit.part(x, axes, both))

    def at(self, **where: Index) -> "Edit":
        """The part that is in both. Raises PrismaError also if both restrict one axis."""
        if not isinstance(further := super().at(**where), At) or further is self:
            return self
        return At(self.edit, Part(self.indices).within(further.indices).indices)


def _fitted(
    edit: Edit, value: Tensor | float, x: Tensor, axes: tuple[str, ...], part: Part, *, direction: bool = True
) -> Tensor:
    """A number or tensor in the type and on the device of `x`, matched with the axes of a part of it."""
    tensor = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    return part.fitted(tensor, x, axes, direction=direction, name=edit._called)


def as_edit(edit: Any) -> tuple[Edit, ...]:
    """An edit, a plain callable, or a sequence of these, as a tuple of edits that are applied in order."""
    if isinstance(edit, Edit):
        return (edit,)
    if callable(edit) and not isinstance(edit, type):  # `Zero` for `Zero()` is a slip
        return (Apply(edit),)
    if isinstance(edit, list | tuple):
        return tuple(e for item in edit for e in as_edit(item))
    raise PrismaError(f"expected an Edit, a function of a tensor, or a list of these; found {_show(edit)}")
