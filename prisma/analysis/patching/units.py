"""What a sweep patches, unit by unit, and where the new values come from."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.errors import PrismaError
from prisma.runs import Model, finish, in_steps, sites_of_every_block
from prisma.sites import Tap, axes_of, canonical


class Units:
    """What is patched: a site of every block, and which indices along one of its axes make up each unit."""

    def __init__(self, model: Model, site: str, axis: str | None, groups: int | Sequence[Sequence[int]] | None) -> None:
        self.site = canonical(site)
        self.sites = sites_of_every_block(model, site)
        self.axes = axes_of(self.sites[0])
        self.axis = axis or ("head" if "head" in self.axes else self.axes[1])
        if self.axis not in (*self.axes[1:], "component"):
            known = ", ".join((*self.axes[1:], "component"))
            raise PrismaError(f"expected an axis of {self.site} to sweep over ({known}); found {self.axis!r}")
        if groups is not None and self.axis == "component":
            raise PrismaError(
                f"axis='component' patches the whole site, which cannot be grouped; found groups={groups}"
            )
        self.groups = groups
        self._masks: dict[int, Tensor] = {}  # size of the axis -> the masks of all units

    def masks(self, value: Tensor, chosen: Tensor | None = None) -> Tensor:
        """[unit, 1, ...]: the part of the site's value [pair, ...] that each unit is, broadcastable to its [1, ...].

        Args:
            chosen: indices of the units that are wanted, on the value's device; by default all.
        """
        size = 1 if self.axis == "component" else value.shape[self.axes.index(self.axis)]
        if size not in self._masks:  # the same in every layer, and each transfer to a GPU waits for it
            self._masks[size] = self._of_units(size, value.ndim).to(value.device)
        masks = self._masks[size]
        return masks if chosen is None else masks[chosen]

    def _of_units(self, size: int, ndim: int) -> Tensor:
        if self.axis == "component":
            return torch.ones([1] * ndim, dtype=torch.bool)
        groups, dim = self._groups(size), self.axes.index(self.axis)
        masks = torch.zeros(len(groups), size, dtype=torch.bool)
        places = [(unit, index) for unit, group in enumerate(groups) for index in group]
        masks[tuple(torch.tensor(places).T)] = True
        return masks.view([len(groups), *(size if d == dim else 1 for d in range(1, ndim))])

    def _groups(self, size: int) -> Sequence[Sequence[int]]:
        if self.groups is None:
            return [[i] for i in range(size)]
        if isinstance(self.groups, int):
            if not 1 <= self.groups <= size:
                raise PrismaError(f"expected 1 to {size} groups of {self.axis}; found {self.groups}")
            return [part.tolist() for part in torch.arange(size).tensor_split(self.groups)]
        if not self.groups or any(not group or not set(group) <= set(range(size)) for group in self.groups):
            raise PrismaError(
                f"expected groups of {self.axis} indices from 0 to {size - 1}, none of them empty; found {self.groups}"
            )
        return self.groups


def chosen_units(cells: Tensor | None, layers: int, device: torch.device) -> Sequence[Tensor | None]:
    """The units of each layer that are patched, of cells [layer, unit], bool, in one transfer to a GPU; None: all."""
    if cells is None:
        return [None] * layers
    cells = cells.cpu()
    return cells.nonzero()[:, 1].to(device).split(cells.sum(1).tolist())


class Source(Protocol):
    """Where new values come from."""

    def value(self, layer: int) -> Tensor:
        """The value of the site in this layer, broadcastable to the target's. Layers are asked for in order."""


class SourceRun:
    """A source that is a run on other inputs. It goes through the blocks as their values are asked for.

    Where it goes through them beside the target run instead, `logits` are given at the end.
    """

    def __init__(self, model: Model, inputs: Tensor, units: Units) -> None:
        self.model, self.inputs, self.units = model, inputs, units
        self.whole = None if in_steps(model, units.site) else record(model, inputs, units.sites)
        self._x: Tensor | None = None  # the stream before the next block
        self._logits: Tensor | None = None

    def value(self, layer: int) -> Tensor:
        site = self.units.sites[layer]
        if self.whole is not None:
            return self.whole[1][site]
        tap = Tap({site})
        x = self.model.embed(self.inputs) if self._x is None else self._x
        self._x = self.model.encode(x, start=layer, stop=layer + 1, tap=tap)
        return tap.tensors[site]

    @property
    def logits(self) -> Tensor:
        """Logits [batch, class] of the source run, once the values of all layers have been asked for."""
        if self._logits is None:
            self._logits = self.whole[0] if self.whole is not None else self._read_out()
        return self._logits

    @logits.setter
    def logits(self, found: Tensor) -> None:
        self._logits = found

    def _read_out(self) -> Tensor:
        assert self._x is not None, "values were asked for"
        return finish(self.model, self._x, self.inputs, start=self.model.config.n_layers)
