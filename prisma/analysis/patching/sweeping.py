"""Runs in which one part of one layer is replaced: many of them in one pass, each started at the block it changes.

Two runs go through the blocks side by side: the target run, which is patched, and the source run, which the new values
come from. At each block every unit is patched once, and each patched run continues from there, together with those of
earlier blocks while they fit in one pass: a small model, or one on a GPU, takes as long for many as for one. What
comes before the block is never computed again, nor what the patched value replaces, nor the tokens of the last block
that the readout does not read.

For L layers, U units per layer and B inputs, counted in rows of block evaluations: 2 B L for the two runs, and
U B (L - l) for the units of layer l, where the first block computes only what comes after the site.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.batching import inputs_per_pass
from prisma.blocks import RESUMABLE
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.runs import Model, attention_stream, finish, in_steps, resume, run, sites_of_every_block
from prisma.sites import Tap, axes_of, canonical

JOINING = frozenset({"resid_pre", "resid_post", *RESUMABLE})
"""Sites whose patched runs go on together with those of earlier blocks."""
MOST_TOGETHER = 64
"""Rows that do so on a CPU, where more save nothing: there a pass of many rows takes as long as its rows one by one."""


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

    def masks(self, value: Tensor) -> Tensor:
        """[unit, 1, ...]: the part of the site's value [pair, ...] that each unit is, broadcastable to it."""
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
                raise PrismaError(f"expected 1 to {size} groups of {self.axis}; found {self.groups}")
            return [part.tolist() for part in torch.arange(size).tensor_split(self.groups)]
        if not self.groups or any(not group or not set(group) <= set(range(size)) for group in self.groups):
            raise PrismaError(
                f"expected groups of {self.axis} indices from 0 to {size - 1}, none of them empty; found {self.groups}"
            )
        return self.groups


class Source(Protocol):
    """Where new values come from."""

    def value(self, layer: int) -> Tensor:
        """The value of the site in this layer, broadcastable to the target's. Layers are asked for in order."""


class SourceRun:
    """A source that is a run on other inputs. It goes through the blocks as their values are asked for."""

    def __init__(self, model: Model, inputs: Tensor, units: Units) -> None:
        self.model, self.inputs, self.units = model, inputs, units
        self.whole = None if in_steps(model, units.site) else record(model, inputs, units.sites)
        self.x = model.embed(inputs) if self.whole is None else inputs

    def value(self, layer: int) -> Tensor:
        site = self.units.sites[layer]
        if self.whole is not None:
            return self.whole[1][site]
        tap = Tap({site})
        self.x = self.model.encode(self.x, start=layer, stop=layer + 1, tap=tap)
        return tap.tensors[site]

    def logits(self) -> Tensor:
        """Logits [batch, class] of the source run, once the values of all layers have been asked for."""
        if self.whole is not None:
            return self.whole[0]
        return finish(self.model, self.x, self.inputs, start=self.model.config.n_layers)


@dataclass(frozen=True)
class PatchedRuns:
    """Logits of the patched runs [cell, image, class], layer by layer, and of the target run itself [image, class]."""

    patched: Tensor
    logits: Tensor
    cells: Tensor  # [layer, unit], bool: which were patched

    def measure(self, metric: Metric) -> Tensor:
        """The metric of every patched run [image, layer, unit]; NaN of cells that were not patched.

        It sees all images of a cell at once, in order.
        """
        everywhere = self.logits.new_full((*self.cells.shape, len(self.logits)), torch.nan)
        if len(self.patched):
            values = torch.stack([measure(metric, of_cell) for of_cell in self.patched])
            everywhere = everywhere.to(values).masked_scatter(self.cells[..., None].to(values.device), values)
        return everywhere.movedim(-1, 0)


def patched_runs(
    model: Model,
    inputs: Tensor,
    units: Units,
    source: Callable[[slice], Source],
    batch: int | None,
    cells: Tensor | None = None,
) -> PatchedRuns:
    """Run the inputs block by block; at each block, patch every unit with the source's value and finish those runs.

    A model that cannot be cut into steps (`runs.in_steps`) makes a whole run for every unit.

    Args:
        source: rows of the inputs -> the source of their new values.
        batch: inputs per pass at most; by default as many as fit in 256 MiB.
        cells: [layer, unit], bool: which units are patched; by default all.

    Raises:
        PrismaError: `batch` is below 1.
    """
    size, one_pass = inputs_per_pass(model, batch), _block_by_block if in_steps(model, units.site) else _whole_runs
    parts = [
        one_pass(model, inputs[rows], units, source(rows), size, cells)
        for rows in (slice(i, i + size) for i in range(0, len(inputs), size))
    ]
    by_layer, logits = zip(*parts, strict=True)
    if cells is None:
        cells = torch.ones(len(units.sites), len(by_layer[0][0]), dtype=torch.bool)
    patched = [torch.cat(of_layer, dim=1) for of_layer in zip(*by_layer, strict=True)]
    return PatchedRuns(torch.cat(patched), torch.cat(logits), cells)


def _block_by_block(
    model: Model, inputs: Tensor, units: Units, source: Source, size: int, cells: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """Logits [unit, pair, class] of each layer's patched runs and [pair, class] of the target run, for one pass."""
    x, last = model.embed(inputs), model.config.n_layers - 1
    found: dict[int, Tensor] = {}  # layer -> logits [unit, pair, class]
    together, room = _Together(model, inputs), size if x.is_cuda else min(size, MOST_TOGETHER)
    for layer, site in enumerate(units.sites):
        stream = attention_stream(model, layer)
        tap = Tap({site, f"blocks.{layer}.resid_mid", stream})
        after = model.encode(x, start=layer, stop=layer + 1, tap=tap)
        own = _Own(x, tap.tensors[stream], tap.tensors[f"blocks.{layer}.resid_mid"], tap.tensors[site])
        masks, new = _masks(units, own.value, layer, cells), source.value(layer)
        rows = len(masks) * len(inputs)
        if layer == last or rows + together.rows > room:
            found |= together.finished(layer)
        else:
            together.pass_block(layer)
        if layer < last and units.site in JOINING and 0 < rows <= room:
            together.join(
                layer, _patch_each(masks, own.value, new, size, partial(_after, model, units.site, layer, own))
            )
        else:
            rest = partial(_continue, model, inputs, units.site, layer, own)
            found[layer] = _patch_each(masks, own.value, new, size, rest)
        x = after
    logits = finish(model, x, inputs, start=model.config.n_layers)
    of_layers = [found[layer] for layer in range(len(units.sites))]
    return [of_layer if len(of_layer) else logits.new_empty(0, *logits.shape) for of_layer in of_layers], logits


class _Together:
    """Patched runs of several layers, all before the same block."""

    def __init__(self, model: Model, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs
        self.layers: list[tuple[int, int]] = []  # (layer, units) of the runs, in order
        self.x: Tensor | None = None  # [unit x pair, token, d_model], all layers one after the other

    @property
    def rows(self) -> int:
        return 0 if self.x is None else len(self.x)

    def pass_block(self, layer: int) -> None:
        if self.x is not None:
            self.x = self.model.encode(self.x, start=layer, stop=layer + 1)

    def join(self, layer: int, streams: Tensor) -> None:
        """Streams after a block, [unit, pair, token, d_model], of the runs that were patched there."""
        self.layers.append((layer, len(streams)))
        x = streams.flatten(0, 1)
        self.x = x if self.x is None else torch.cat([self.x, x])

    def finished(self, start: int) -> dict[int, Tensor]:
        """Layer -> logits [unit, pair, class] of these runs, which continue before block `start`, and end."""
        if self.x is None:
            return {}
        pairs = len(self.inputs)
        logits = finish(
            self.model, self.x, self.inputs.repeat(self.rows // pairs, *[1] * (self.inputs.ndim - 1)), start=start
        )
        parts = logits.unflatten(0, (-1, pairs)).split([units for _, units in self.layers])
        found = {layer: part for (layer, _), part in zip(self.layers, parts, strict=True)}
        self.layers, self.x = [], None
        return found


def _whole_runs(
    model: Model, inputs: Tensor, units: Units, source: Source, size: int, cells: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """As `_block_by_block`, by whole runs, each of one unit and all pairs of the pass."""

    def rest(site: str, patched: Tensor, pair: Tensor) -> Tensor:
        return run(model, inputs[pair], {site: Set(patched)})

    logits, own = record(model, inputs, units.sites)
    patched = []
    for layer, site in enumerate(units.sites):
        masks = _masks(units, own[site], layer, cells)
        found = _patch_each(masks, own[site], source.value(layer), len(inputs), partial(rest, site))
        patched.append(found if len(found) else logits.new_empty(0, *logits.shape))
    return patched, logits


def _masks(units: Units, value: Tensor, layer: int, cells: Tensor | None) -> Tensor:
    """[unit, 1, ...]: the parts of the site's value that the units of a layer are, of those that are patched."""
    masks = units.masks(value)
    return masks if cells is None else masks[cells[layer].to(masks.device)]


@dataclass(frozen=True)
class _Own:
    """What the target run has in one block."""

    resid_pre: Tensor
    attention_stream: Tensor  # that attention reads and adds to
    resid_mid: Tensor
    value: Tensor  # of the site


def _patch_each(masks: Tensor, own: Tensor, new: Tensor, size: int, rest: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What `rest` gives for the runs in which one unit of one layer holds the new value: logits [unit, pair, class], or
    streams [unit, pair, token, d_model]; [0] without units.

    Args:
        masks: [unit, 1, ...]: the part of the value that each unit is.
        own, new: the site's value [pair, ...] in the target run, and the one that is patched in.
        rest: the patched value [row, ...] and the pair of each row -> what it becomes, [row, ...].
    """
    if not len(masks):
        return own.new_empty(0)
    new, pairs, logits = new.expand_as(own), len(own), []
    for rows in torch.arange(len(masks) * pairs, device=own.device).split(size):
        unit, pair = rows // pairs, rows % pairs
        logits.append(rest(torch.where(masks[unit], new[pair], own[pair]), pair))
    return torch.cat(logits).unflatten(0, (len(masks), pairs))


def _after(model: Model, site: str, layer: int, own: _Own, patched: Tensor, pair: Tensor) -> Tensor:
    """Streams after the block [row, token, d_model] of runs in which one of `JOINING` holds the patched value."""
    if site == "resid_post":
        return patched
    if site == "resid_pre":
        return model.encode(patched, start=layer, stop=layer + 1)
    block: Any = model.blocks[layer]
    return block.resume(site, patched, own.attention_stream[pair], own.resid_mid[pair])


def _continue(model: Model, inputs: Tensor, site: str, layer: int, own: _Own, patched: Tensor, pair: Tensor) -> Tensor:
    """Logits [row, class] of runs in which a site holds the patched value, from the latest point that knows it."""
    inputs = inputs[pair]
    if site in ("resid_pre", "resid_post"):
        return finish(model, patched, inputs, start=layer + (site == "resid_post"))
    x, middle = own.attention_stream[pair], own.resid_mid[pair]
    if site in RESUMABLE:
        return resume(model, inputs, layer, site, patched, x, middle)
    tap = Tap(edit={f"blocks.{layer}.{site}": (Set(patched),)})
    if site.startswith(("ln2.", "mlp.")):
        return resume(model, inputs, layer, "resid_mid", middle, x, tap=tap)
    return finish(model, own.resid_pre[pair], inputs, start=layer, tap=tap)
