"""Patched runs that go through the blocks together, behind the run that is patched and the one that is the source.

A small model, or one on a GPU, takes as long for many runs as for one: it waits for the calls, not for the arithmetic.
So each block is called once for all runs that have come to it, while they fit in one pass: they are computed up to the
site (`Block.until`), those in which a unit of this layer is patched are put behind the others, and all are continued
(`Block.resume`). Where they do not fit, the patched runs of one layer go to the end by themselves.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.patching.units import Source, SourceRun, Units
from prisma.blocks import RESUMABLE
from prisma.config import TextConfig
from prisma.edits import Set
from prisma.runs import Model, attention_stream, finish, resume, tokens_needed
from prisma.sites import Tap

MOST_TOGETHER = 64
"""Runs that go on together on a CPU, where more save nothing: there many rows take as long together as one by one."""
Streams = tuple[Tensor, Tensor, Tensor | None]
"""What `Block.until` gives: the value of the site, and what `Block.resume` needs with it."""


class BlockByBlock:
    """The target run of one pass of inputs, and a run for every unit of every layer.

    Args:
        size: rows of a pass at most.
        chosen: the units of each layer that are patched (`units.chosen_units`).
    """

    def __init__(
        self, model: Model, inputs: Tensor, units: Units, source: Source, size: int, chosen: Sequence[Tensor | None]
    ) -> None:
        self.model, self.units, self.source, self.size, self.chosen = model, units, source, size, chosen
        self.pairs = len(inputs)
        self.room = size if inputs.is_cuda else min(size, MOST_TOGETHER)
        self.beside: SourceRun | None = None  # the source, where its rows come behind those of the target run
        if isinstance(source, SourceRun) and source.whole is None and 2 * self.pairs <= self.room:
            self.beside, inputs = source, torch.cat([inputs, source.inputs])
        self.inputs, self.unpatched = inputs, len(inputs)
        self.layers: list[tuple[int, int]] = []  # (layer, units) of the patched runs, in order
        self.x = model.embed(inputs)  # [row, token, d_model]: unpatched runs, then for each unit patched a row per pair
        self.found: dict[int, Tensor] = {}  # layer -> logits [unit, pair, class] of the patched runs that have ended

    def logits(self) -> tuple[list[Tensor], Tensor]:
        """Logits [unit, pair, class] of each layer's patched runs and [pair, class] of the target run."""
        layers = self.model.config.n_layers
        for layer in range(layers):
            if layer == layers - 1:  # of the last block they need the tokens that are read out alone
                self._end(self.x[self.unpatched :], layer)
                self.x = self.x[: self.unpatched]
            (self._pass if self.units.site in RESUMABLE else self._pass_unpatched)(layer)
        target = self._end(self.x, layers)
        nothing = target.new_empty(0, *target.shape)
        return [self.found.get(layer, nothing) for layer in range(layers)], target

    def _pass(self, layer: int) -> None:
        """All runs through one block, with those in which a unit of this layer is patched."""
        block: Any = self.model.blocks[layer]
        site, own = self.units.site, slice(self.pairs)
        held: Streams = block.until(site, self.x)
        new, masks = self._new(held[0], layer), self._masks(held[0], layer)
        rows, value = len(masks) * self.pairs, held[0][own]
        if self.layers and len(self.x) + rows > self.room:
            self._end(block.resume(site, *_rows(held, slice(self.unpatched, None))), layer + 1)
            held = _rows(held, slice(self.unpatched))
        if 0 < rows <= self.room - len(held[0]):
            patched = torch.where(masks[:, None], new, value).flatten(0, 1)
            held = _behind(held, patched, _rows(held, own), len(masks))
            self.layers.append((layer, len(masks)))
        elif rows:
            rest = partial(self._resumed, layer, _rows(held, own))
            self.found[layer] = patch_each(masks, value, new, self.size, rest)
        keep = tokens_needed(self.model, Tap()) if layer == self.model.config.n_layers - 1 else None
        self.x = block.resume(site, *held, keep=keep)

    def _pass_unpatched(self, layer: int) -> None:
        """As `_pass`, for a site from whose value a block cannot be continued: the patched runs are edited ones."""
        own = slice(self.pairs)
        site, stream, mid = self.units.sites[layer], attention_stream(self.model, layer), f"blocks.{layer}.resid_mid"
        before, tap = self.x[own], Tap({site, stream, mid})
        self.x = self.model.encode(self.x, start=layer, stop=layer + 1, tap=tap)
        value = tap.tensors[site]
        new, masks = self._new(value, layer), self._masks(value, layer)
        if len(masks):
            rest = partial(self._edited, layer, before, tap.tensors[stream][own], tap.tensors[mid][own])
            self.found[layer] = patch_each(masks, value[own], new, self.size, rest)

    def _new(self, value: Tensor, layer: int) -> Tensor:
        """What is patched in, broadcastable to the target's value."""
        return self.source.value(layer) if self.beside is None else value[self.pairs : self.unpatched]

    def _masks(self, value: Tensor, layer: int) -> Tensor:
        return self.units.masks(value, self.chosen[layer])

    def _end(self, x: Tensor, start: int) -> Tensor:
        """Continue runs before block `start` to their logits, which are kept by layer; those of the target run.

        Rows of `x` are all, or the patched ones alone.
        """
        if not len(x):
            return x
        patched = sum(units for _, units in self.layers) * self.pairs
        unpatched = len(x) - patched
        pair = torch.arange(patched, device=x.device) % self.pairs
        rows = torch.cat([torch.arange(unpatched, device=x.device), pair])
        logits = finish(self.model, x, self._inputs(rows), start=start)
        ends = logits[unpatched:].unflatten(0, (-1, self.pairs)).split([units for _, units in self.layers])
        self.found |= {layer: part for (layer, _), part in zip(self.layers, ends, strict=True)}
        self.layers = []
        if unpatched and self.beside is not None:
            self.beside.logits = logits[self.pairs : unpatched]
        return logits[: self.pairs]

    def _inputs(self, rows: Tensor) -> Tensor:
        """The inputs of runs that have begun: a text tower reads the ids again at its end, nothing reads images."""
        return self.inputs[rows] if isinstance(self.model.config, TextConfig) else self.inputs

    def _resumed(self, layer: int, held: Streams, patched: Tensor, pair: Tensor) -> Tensor:
        """Logits [row, class] of runs in which a site of `RESUMABLE` holds the patched value."""
        _, stream, mid = _rows(held, pair)
        return resume(self.model, self._inputs(pair), layer, self.units.site, patched, stream, mid)

    def _edited(self, layer: int, before: Tensor, stream: Tensor, mid: Tensor, patched: Tensor, pair: Tensor) -> Tensor:
        """Logits [row, class] of runs in which any other site does, from the latest point that knows it."""
        tap, inputs = Tap(edit={self.units.sites[layer]: (Set(patched),)}), self._inputs(pair)
        if self.units.site.startswith(("ln2.", "mlp.")):
            return resume(self.model, inputs, layer, "resid_mid", mid[pair], stream[pair], tap=tap)
        return finish(self.model, before[pair], inputs, start=layer, tap=tap)


def patch_each(masks: Tensor, own: Tensor, new: Tensor, size: int, rest: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Logits [unit, pair, class] of the runs in which one unit of one layer holds the new value.

    Args:
        masks: [unit, ...]: the part of the value that each unit is, one or more.
        own, new: the site's value [pair, ...] in the target run, and the one that is patched in.
        size: rows of a pass at most.
        rest: the patched value [row, ...] and the pair of each row -> logits [row, class].
    """
    new, pairs, logits = new.expand_as(own), len(own), []
    for rows in torch.arange(len(masks) * pairs, device=own.device).split(size):
        unit, pair = rows // pairs, rows % pairs
        logits.append(rest(torch.where(masks[unit], new[pair], own[pair]), pair))
    return torch.cat(logits).unflatten(0, (len(masks), pairs))


def _rows(held: Streams, rows: slice | Tensor) -> Streams:
    value, stream, mid = held
    return value[rows], stream[rows], None if mid is None else mid[rows]


def _behind(held: Streams, patched: Tensor, own: Streams, times: int) -> Streams:
    """With rows in which the site has the patched value, and the streams are those of the target run, so many times."""
    value, stream, mid = held
    _, own_stream, own_mid = own
    if mid is not None and own_mid is not None:
        mid = torch.cat([mid, own_mid.repeat(times, 1, 1)])
    return torch.cat([value, patched]), torch.cat([stream, own_stream.repeat(times, 1, 1)]), mid
