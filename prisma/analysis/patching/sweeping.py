"""Runs in which one part of one layer is replaced, many in one pass, each from the block where it differs on.

Two streams walk the blocks side by side: of the run that is patched, and of the run that values come from. At each
block all its units are patched, and each of these runs goes on from that very block: what comes before it is never
computed again, nor what the patched value replaces, nor the tokens of the last block that nothing reads.

For L layers, U units of a layer and B inputs, in rows of block evaluations: 2 B L for the two streams, and for the
units of layer l U B (L - l), the first of which computes only what comes after the site.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.runs import Model, finish, sites_of_every_block
from prisma.sites import GIVABLE, Tap, axes_of, canonical


class Units:
    """What is patched: a site of every block, and which indices of one of its axes belong to each unit."""

    def __init__(self, model: Model, site: str, axis: str | None, groups: int | Sequence[Sequence[int]] | None) -> None:
        self.site = canonical(site)
        self.sites = sites_of_every_block(model, site)
        self.axes = axes_of(self.sites[0])
        self.axis = axis or ("head" if "head" in self.axes else "token")
        if self.axis not in (*self.axes[1:], "component"):
            raise PrismaError(
                f"{self.site} has the axes {', '.join(self.axes)}; there is no axis {self.axis!r} to sweep over"
            )
        if groups is not None and self.axis == "component":
            raise PrismaError(
                f"groups are of the indices of an axis, of which a whole component has none; found {groups}"
            )
        self.groups = groups

    def masks(self, value: Tensor) -> Tensor:
        """[unit, 1, ...]: the part of a value [pair, ...] of the site that each unit is, broadcastable to it."""
        if self.axis == "component":
            return torch.ones([1] * (value.ndim + 1), dtype=torch.bool, device=value.device)[:, 0]
        dim = self.axes.index(self.axis)
        size = value.shape[dim]
        groups = self._groups(size)
        masks = torch.zeros(len(groups), size, dtype=torch.bool, device=value.device)
        for unit, group in enumerate(groups):
            masks[unit, torch.as_tensor(group)] = True
        return masks.view([len(groups), *(size if d == dim else 1 for d in range(1, value.ndim))])

    def _groups(self, size: int) -> Sequence[Sequence[int]]:
        if self.groups is None:
            return [[i] for i in range(size)]
        if isinstance(self.groups, int):
            if not 1 <= self.groups <= size:
                raise PrismaError(f"expected 1 to {size} groups of {self.axis}, found {self.groups}")
            return [part.tolist() for part in torch.arange(size).tensor_split(self.groups)]
        if not self.groups or any(not group or not set(group) <= set(range(size)) for group in self.groups):
            raise PrismaError(f"expected groups of {self.axis} from 0 to {size - 1}, none of them empty")
        return self.groups


class Donor(Protocol):
    """Where patched values come from."""

    def step(self, layer: int) -> Tensor:
        """The value of the site in this layer, broadcastable to it. Layers are asked for in order."""


class OtherRun:
    """A donor that is a run on other inputs: it walks the blocks as they are asked for."""

    def __init__(self, model: Model, inputs: Tensor, units: Units) -> None:
        self.model, self.inputs, self.units = model, inputs, units
        self.x = model.embed(inputs)

    def step(self, layer: int) -> Tensor:
        site = self.units.sites[layer]
        tap = Tap(frozenset({site}), {})
        self.x = self.model.encode(self.x, start=layer, stop=layer + 1, tap=tap)
        return tap.tensors[site]

    def logits(self) -> Tensor:
        """Of that run [batch, class], once all layers have been asked for."""
        return finish(self.model, self.x, self.inputs, start=self.model.config.n_layers)


@dataclass(frozen=True)
class Walked:
    """Logits of every patched run [layer, unit, image, class], and of the run without patches [image, class]."""

    patched: Tensor
    logits: Tensor

    def measure(self, metric: Metric) -> Tensor:
        """[image, layer, unit]. The metric sees all images of a unit at once, in order."""
        values = torch.stack([measure(metric, of_unit) for of_unit in self.patched.flatten(0, 1)])
        return values.unflatten(0, self.patched.shape[:2]).movedim(-1, 0)


def walk(model: Model, inputs: Tensor, units: Units, donate: Callable[[slice], Donor], batch: int | None) -> Walked:
    """Run the inputs block by block; at each block, patch every unit with the donor's value, and finish those runs.

    Args:
        donate: rows of the inputs -> the donor for them.
        batch: at most so many inputs in one pass; None for as many as have `PASS_BYTES` of activations.

    Raises:
        PrismaError: `batch` is below 1.
    """
    size = inputs_per_pass(model, batch)
    parts = []
    for rows in (slice(i, i + size) for i in range(0, len(inputs), size)):
        some, donor = inputs[rows], donate(rows)
        x, patched = model.embed(some), []
        for layer, site in enumerate(units.sites):
            tap = Tap(frozenset({site, f"blocks.{layer}.resid_mid"}), {})
            after = model.encode(x, start=layer, stop=layer + 1, tap=tap)
            patched.append(_patch_each(model, x, some, units, layer, tap.tensors, donor.step(layer), size))
            x = after
        parts.append((torch.stack(patched), finish(model, x, some, start=model.config.n_layers)))
    patched_parts, logits = zip(*parts, strict=True)
    return Walked(torch.cat(patched_parts, dim=2), torch.cat(logits))


def _patch_each(
    model: Model,
    x: Tensor,
    inputs: Tensor,
    units: Units,
    layer: int,
    own: Mapping[str, Tensor],
    donated: Tensor,
    size: int,
) -> Tensor:
    """Logits [unit, pair, class] of the runs in which each unit of one layer holds the donated value."""
    value = own[units.sites[layer]]
    masks, donated, pairs = units.masks(value), donated.expand_as(value), len(x)
    logits = []
    for rows in torch.arange(len(masks) * pairs, device=x.device).split(size):
        unit, pair = rows // pairs, rows % pairs
        patched = torch.where(masks[unit], donated[pair], value[pair])
        if units.site in ("resid_pre", "resid_post"):
            start = layer + (units.site == "resid_post")
            logits.append(finish(model, patched, inputs[pair], start=start))
        else:
            middle = own[f"blocks.{layer}.resid_mid"][pair]
            tap = _replacing(units.site, layer, patched, middle)
            logits.append(finish(model, x[pair], inputs[pair], start=layer, tap=tap))
    return torch.cat(logits).unflatten(0, (len(masks), pairs))


def _replacing(site: str, layer: int, patched: Tensor, middle: Tensor) -> Tap:
    """The site holds `patched`; before the MLP branch, everything is as it was."""
    block = f"blocks.{layer}."
    given = {f"{block}resid_mid": middle} if site.startswith(("ln2.", "mlp")) else {}
    edit: dict[str, tuple[Any, ...]] = {}
    if site in GIVABLE:
        given[block + site] = patched
    else:
        edit[block + site] = (Set(patched),)
    return Tap(frozenset(), edit, given)


def expect_pairs(clean: Tensor, corrupt: Tensor) -> None:
    if clean.shape != corrupt.shape or not len(clean):
        raise PrismaError(
            f"clean and corrupt must hold pairs of one shape; found {list(clean.shape)} and {list(corrupt.shape)}"
        )


def directed(clean: Tensor, corrupt: Tensor, into: str) -> tuple[Tensor, Tensor]:
    """(the inputs whose runs are patched, the inputs whose runs values come from).

    Raises:
        PrismaError: shapes differ, there are no pairs, or `into` is neither clean nor corrupt.
    """
    expect_pairs(clean, corrupt)
    return (clean, corrupt) if donor_of(into) == "corrupt" else (corrupt, clean)


def donor_of(into: str) -> str:
    """The run that values come from: clean or corrupt. Raises PrismaError if `into` is neither."""
    if into not in (donors := {"clean": "corrupt", "corrupt": "clean"}):
        raise PrismaError(f"into must be clean or corrupt; found {into!r}")
    return donors[into]
