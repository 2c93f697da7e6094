"""A part of a tensor, by the names of its axes: what `.at` selects, and how the axes of a value are matched with it.

A value is matched by name and never by what happens to fit. It has

    no axis                 a number
    all axes of the part    those that are left of the site's, without the axes for which `.at` gives one index
    all axes of the site    the part is taken out of it: `Set(acts[site]).at(head=2)`
    the features alone      the last axis, if it is one of `FEATURES`: a direction, the same everywhere

and each axis has the part's size, or 1 where the value repeats. The axis `batch` never repeats by itself: a value of
one image for several is written `value.expand(n, ...)`. In a call with one image, a value of a part may be without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.sites import FEATURES

Index = int | slice | Sequence[int]
Indices = tuple[tuple[str, int | slice | tuple[int, ...]], ...]
"""(axis, index) for each axis that is restricted."""
_WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Part:
    """The given indices of the named axes, and all of the other axes. One index removes its axis from the part."""

    indices: Indices = ()

    def within(self, indices: Indices) -> "Part":
        """The part that is in both. Raises PrismaError if they restrict the same axis."""
        if twice := {axis for axis, _ in self.indices} & {axis for axis, _ in indices}:
            raise PrismaError(f"expected .at to restrict each axis once; found {min(twice)} twice")
        return Part(tuple(sorted(self.indices + indices)))

    def axes(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the part's axes."""
        removed = {axis for axis, index in self.indices if isinstance(index, int)}
        return tuple(axis for axis in axes if axis not in removed)

    def read(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        """The part of `x`."""
        for dim, index in self._places(x, axes):
            x = _taken(x, dim, index)
        return x

    def write(self, x: Tensor, axes: tuple[str, ...], new: Tensor) -> Tensor:
        """A copy of `x` in which this part is `new`."""
        places, stages = self._places(x, axes), [x]
        for dim, index in places:
            stages.append(_taken(stages[-1], dim, index))
        for (dim, index), stage in zip(reversed(places), reversed(stages[:-1]), strict=True):
            new = _put(stage, dim, index, new)
        return new

    def fitted(
        self, value: Tensor, x: Tensor, axes: tuple[str, ...], *, direction: bool = True, name: str = "value"
    ) -> Tensor:
        """A value that broadcasts to this part of `x`, from one whose axes are among those listed above.

        Args:
            direction: whether one axis alone is surely that of the features. Of factors and masks it may as well be
                one for each image, head or token, so they are refused where such an axis has the same size.
            name: what the messages call the value.

        Raises:
            PrismaError: its axes or their sizes are others, or two axes have the size of its only one.
        """
        names, shape = self.axes(axes), self.read(x, axes).shape
        if value.ndim == 0:
            return value
        if names and names[-1] in FEATURES and value.shape == shape[-1:]:
            alike = [name for name, size in zip(names[:-1], shape, strict=False) if size == shape[-1]]
            if alike and not direction:
                raise PrismaError(
                    f"expected factors or a mask whose axis is clear; found {list(value.shape)}, which may be "
                    f"{alike[0]} or {names[-1]}: write all axes, with sizes of 1 where it repeats"
                )
            return value
        found = self._out_of_site(value, x, axes) if value.ndim == x.ndim else value
        if names[:1] == ("batch",) and shape[0] == 1 and found.ndim == len(names) - 1:
            found = found[None]
        sizes = list(zip(names, shape, found.shape, strict=False))
        if found.ndim != len(names) or any(size not in (1, full) for _, full, size in sizes):
            raise PrismaError(_misfit(value, x, axes, names, shape) + _hint(name, found, names, shape))
        if any(axis == "batch" and size != full for axis, full, size in sizes):
            raise PrismaError(
                f"expected a value for each of {shape[names.index('batch')]} images; found one for one image, "
                f"{list(value.shape)}: if it is meant for all, use {name}.expand({shape[names.index('batch')]}, ...)"
            )
        return found

    def _out_of_site(self, value: Tensor, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        """The part of a value that has all axes of the site. An axis of the part's size is that of the part already."""
        for dim, index in self._places(x, axes):
            size, full = value.shape[dim], x.shape[dim]
            if isinstance(index, int) and size in (1, full):
                value = value.select(dim, index if size == full else 0)
            elif not isinstance(index, int) and size == full:
                rows = range(full)[index] if isinstance(index, slice) else index
                if len(rows) == full and [i % full for i in rows] != list(range(full)):
                    raise PrismaError(
                        f"expected indices in ascending order with a value for all of {axes[dim]}; found {list(rows)}, "
                        "with which its order is not clear"
                    )
                value = _taken(value, dim, index)
        return value

    def _places(self, x: Tensor, axes: tuple[str, ...]) -> list[tuple[int, int | slice | tuple[int, ...]]]:
        """(dimension, index) from the last dimension to the first, so that removing one leaves the others in place."""
        found = []
        for axis, index in self.indices:
            dim = dim_of(axis, axes)
            _expect_inside(axis, index, x.shape[dim])
            found.append((dim, index))
        return sorted(found, key=lambda place: -place[0])


def dim_of(axis: str, axes: tuple[str, ...]) -> int:
    """The dimension of an axis. Raises PrismaError if a site does not have it."""
    if axis not in axes:
        raise PrismaError(f"expected an axis of this site ({', '.join(axes)}); found {axis!r}")
    return axes.index(axis)


def frozen(axis: str, index: Any) -> int | slice | tuple[int, ...]:
    """An index as a value, from Python, numpy and torch integers, sequences of them, or a slice.

    Raises:
        PrismaError: something else, no index at all, or one index twice.
    """
    if isinstance(index, slice):
        return index
    try:
        chosen = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        chosen = None
    if chosen is None or chosen.ndim > 1 or (chosen.numel() and chosen.dtype not in _WHOLE_NUMBERS):
        raise PrismaError(
            f"expected {axis} to be one or several whole numbers, or a slice (a mask goes to .where); found {index!r}"
        )
    if not chosen.numel():
        raise PrismaError(f"expected at least one index of {axis}; found none")
    return tuple(chosen.tolist()) if chosen.ndim else int(chosen)


def _expect_inside(axis: str, index: int | slice | tuple[int, ...], size: int) -> None:
    if isinstance(index, slice):
        ends = [end for end in (index.start, index.stop) if end is not None]
        if any(not -size <= end <= size for end in ends) or not len(range(size)[index]):
            raise PrismaError(f"expected a slice of {axis} that selects some of 0 to {size - 1}; found {_show(index)}")
        return
    rows = [index] if isinstance(index, int) else list(index)
    if outside := [i for i in rows if not -size <= i < size]:
        raise PrismaError(f"expected {axis} from 0 to {size - 1} at this site; found {outside[0]}")
    if len({i % size for i in rows}) < len(rows):
        raise PrismaError(f"expected each index of {axis} once; found {rows} of {size}")


def _show(index: slice) -> str:
    ends = ["" if end is None else str(end) for end in (index.start, index.stop, index.step)]
    return ":".join(ends if index.step is not None else ends[:2])


def _taken(x: Tensor, dim: int, index: int | slice | tuple[int, ...]) -> Tensor:
    if isinstance(index, int):
        return x.select(dim, index)
    if isinstance(index, slice) and (index.step or 1) > 0:
        return x[(*[slice(None)] * dim, index)]
    return x.index_select(dim, _rows(index, x, dim))


def _put(x: Tensor, dim: int, index: int | slice | tuple[int, ...], new: Tensor) -> Tensor:
    if isinstance(index, int):
        return x.select_scatter(new, dim, index)
    if isinstance(index, slice) and (index.step or 1) > 0:
        return x.slice_scatter(new, dim, index.start, index.stop, index.step or 1)
    return x.index_copy(dim, _rows(index, x, dim), new)


def _rows(index: slice | tuple[int, ...], x: Tensor, dim: int) -> Tensor:
    rows = range(x.shape[dim])[index] if isinstance(index, slice) else [i % x.shape[dim] for i in index]
    return torch.tensor(list(rows), device=x.device)


def _misfit(value: Tensor, x: Tensor, axes: tuple[str, ...], names: tuple[str, ...], shape: torch.Size) -> str:
    """What a value may look like, and what it looks like."""
    kinds = [(names, list(shape))] * bool(names)
    kinds += [(axes, list(x.shape))] * (axes != names)
    kinds += [(names[-1:], list(shape[-1:]))] * (len(names) > 1 and names[-1] in FEATURES)
    known = ", ".join(["a number", *(f"[{', '.join(axis)}] = {sizes}" for axis, sizes in kinds)])
    return f"expected a value with the axes of the part that it is for ({known}); found {list(value.shape)}"


def _hint(name: str, value: Tensor, names: tuple[str, ...], shape: torch.Size) -> str:
    """How to write a value that lacks some axes, where its sizes say which ones it has."""
    kept = [axes for axes in combinations(range(len(names)), value.ndim) if [*value.shape] == [shape[i] for i in axes]]
    if len(kept) != 1 or not value.ndim or value.ndim == len(names):
        return ""
    has, of_batch = kept[0], names[0] == "batch" and 0 not in kept[0]
    if of_batch and value.ndim == len(names) - 1:
        return f": if it is meant for all images, use {name}.expand({shape[0]}, *{name}.shape)"
    inside = ", ".join(":" if i in has else "None" for i in range(len(names)))
    expand = f".expand({', '.join([str(shape[0]), *['-1'] * (len(names) - 1)])})" if of_batch and shape[0] > 1 else ""
    which = " and ".join(names[i] for i in has)
    some = f", or .at({names[has[0]]}=...) for some" if len(has) == 1 and names[has[0]] != "batch" else ""
    return f": if its axes are {which}, use {name}[{inside}]{expand}{some}"
