"""Numbers that are read from a run, and arithmetic with them.

An `Objective` is a value: `Channel("blocks.3.mlp.post", 17) - 0.5 * Neuron("logits", 3)`. It names the sites that it
needs, and computes one number for each image from the activations there. A sum or a product holds each part once.

Shapes: B image, T position (a token, or a place of a convolution's map in raster order), F feature.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.errors import PrismaError, quoted
from prisma.sites import FEATURES, axes_of

MAP = ("batch", "channel", "row", "column")
"""Axes of what a convolution gives."""
PLACES = ("token", "patch", "query")
"""Axes of positions."""
Read = Callable[[Tensor, tuple[str, ...]], "Activations"]
"""Pixels [batch, channel, height, width] in [0, 1] and sites -> the activations there."""


@runtime_checkable
class Reading(Protocol):
    """A number that is computed from activations of a run."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The sites that it needs."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that it looks at by their place; a mean over tokens looks at none."""

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """The number for each image of a run [batch]."""


class Activations(Mapping[str, Tensor]):
    """Site -> tensor of a run, with the names of its axes and, for a model of Prisma, what each token is."""

    def __init__(
        self, tensors: Mapping[str, Tensor], axes: Mapping[str, tuple[str, ...]], grid: TokenGrid | None = None
    ) -> None:
        self._tensors, self.axes, self.grid = dict(tensors), axes, grid

    def __getitem__(self, site: str) -> Tensor:
        return self._tensors[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def split(self, size: int) -> "list[Activations]":
        """The same in parts of `size` images."""
        parts = {site: x.split(size) for site, x in self._tensors.items()}
        count = len(next(iter(parts.values()), ()))
        return [Activations({site: x[i] for site, x in parts.items()}, self.axes, self.grid) for i in range(count)]


def named_axes(acts: Mapping[str, Tensor], site: str) -> tuple[Tensor, tuple[str, ...]]:
    """The value of a site and the names of its axes; the map of a convolution as [batch, token, channel]."""
    x, axes = acts[site], acts.axes[site] if isinstance(acts, Activations) else axes_of(site)
    return (x.flatten(2).transpose(1, 2), ("batch", "token", "channel")) if axes == MAP else (x, axes)


def features_at(acts: Mapping[str, Tensor], site: str, where: str | int = "patches", head: int | None = None) -> Tensor:
    """[batch, position, feature]: what a site says of the positions asked for. A site without positions has one.

    Args:
        where: "patches" (of a foreign network all positions), "class", "registers", "all", or a position by its place.
        head: which head, where the site has heads.

    Raises:
        PrismaError: the site has no features, no such head, or no such positions.
    """
    x, axes = named_axes(acts, site)
    if axes[-1] not in (*FEATURES, "channel", "feature") or ("head" in axes) != (head is not None):
        raise PrismaError(
            f"expected a site of features, and a head where it has heads; found {site} with the axes {', '.join(axes)} "
            f"and head={head}"
        )
    if head is not None:
        expect_index(head, x.shape[axes.index("head")], "head", site)
        x = x.select(axes.index("head"), head)
    if axes[1] not in PLACES:
        return x[:, None] if x.ndim == 2 else x
    return x[:, _positions(acts, site, axes, where, x.shape[1])]


def _positions(
    acts: Mapping[str, Tensor], site: str, axes: tuple[str, ...], where: str | int, count: int
) -> Tensor | slice:
    if isinstance(where, int):
        expect_index(where, count, "position", site)
        return slice(where, where + 1) if where != -1 else slice(-1, None)
    grid = acts.grid if isinstance(acts, Activations) else None
    if grid is None or axes[1] != "token" or where == "all":
        known = isinstance(acts, Activations) or axes[1] != "token" or where == "all"
        if where not in ("patches", "all") or not known:
            raise PrismaError(f"expected positions that {site} has; found {quoted(where)}, and it is not known which")
        return slice(None)
    chosen = grid.role(where)
    if not chosen.any() or len(chosen) != count:
        raise PrismaError(f"expected tokens of {site}; found where={quoted(where)}, of which the model has none")
    if where == "patches":
        return slice(grid.n_prefix, None)  # a view: nothing is copied
    return chosen.nonzero()[:, 0].to(acts[site].device)


def expect_index(index: int, count: int, axis: str, site: str) -> None:
    """Raise PrismaError unless a site has this index along an axis."""
    if not -count <= index < count:
        raise PrismaError(f"expected a {axis} of {site} below {count}; found {index}")


class Objective:
    """A number per image that is read from a run. `+`, `-`, `*` and `/` combine it with others and with numbers."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The sites that it needs."""
        return ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that it looks at by their place."""
        return ()

    @property
    def per_image(self) -> bool:
        """Whether the number of an image depends on this image alone, and not on its place among others."""
        return True

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """The number for each image [batch]."""
        raise NotImplementedError

    def bound(self, read: Read) -> "Objective":
        """The same, with what it needs of other pictures read once. Most need nothing."""
        return self

    def expect_fits(self, model: Any) -> None:
        """Raise PrismaError if this objective, or one inside, is of another model. Most are of any."""
        held = [x for value in vars(self).values() for x in (value if isinstance(value, tuple) else (value,))]
        for x in held:
            if isinstance(x, Objective):
                x.expect_fits(model)

    def __add__(self, other: "Reading | float") -> "Sum":
        return Sum((*_parts(Sum, self), *_parts(Sum, other)))

    __radd__ = __add__

    def __neg__(self) -> "Product":
        return Product((-1.0, *_parts(Product, self)))

    def __sub__(self, other: "Reading | float") -> "Sum":
        return self + (-1.0 * other if isinstance(other, Objective | int | float) else Product((-1.0, other)))

    def __rsub__(self, other: float) -> "Sum":
        return -self + other

    def __mul__(self, other: "Reading | float") -> "Product":
        return Product((*_parts(Product, self), *_parts(Product, other)))

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> "Product":
        if isinstance(number, bool) or not isinstance(number, int | float) or not number:
            raise PrismaError(f"expected to divide an objective by a number that is not 0; found {quoted(number)}")
        return self * (1.0 / number)


def _parts(kind: "type[Sum] | type[Product]", x: "Reading | float") -> "tuple[Reading | float, ...]":
    """What a sum or a product consists of; anything else is one part."""
    if isinstance(x, kind):
        return x.parts
    if isinstance(x, bool | type) or not isinstance(x, Reading | int | float):
        raise PrismaError(f"expected an objective or a number; found {quoted(x)}")
    return (x,)


@dataclass(frozen=True)
class _Combined(Objective):
    """Objectives and numbers that are combined; each part counts once."""

    parts: "tuple[Reading | float, ...]"

    @property
    def _read(self) -> "list[Reading]":
        return [x for x in self.parts if not isinstance(x, int | float)]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(site for x in self._read for site in x.reads))

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(token for x in self._read for token in x.tokens))

    @property
    def per_image(self) -> bool:
        return all(getattr(x, "per_image", True) for x in self._read)

    def bound(self, read: Read) -> Objective:
        return replace(self, parts=tuple(x.bound(read) if isinstance(x, Objective) else x for x in self.parts))

    def _values(self, acts: Mapping[str, Tensor]) -> "list[Tensor | float]":
        return [x if isinstance(x, int | float) else x.value(acts) for x in self.parts]


class Sum(_Combined):
    """The sum of its parts."""

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """The sum for each image [batch]."""
        first, *others = self._values(acts)
        for x in others:
            first = first + x
        return torch.as_tensor(first)


class Product(_Combined):
    """The product of its parts."""

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """The product for each image [batch]."""
        first, *others = self._values(acts)
        for x in others:
            first = first * x
        return torch.as_tensor(first)
