"""Runs in which one part of one layer is replaced: many of them in one pass, each started at the block it changes.

Two runs go through the blocks side by side: the target run, which is patched, and the source run, which the new values
come from. At each block every unit is patched once, and each patched run continues from there. What comes before the
block is never computed again, nor what the patched value replaces, nor the tokens of the last block that the readout
does not read (`block_by_block`).

For L layers, U units per layer and B inputs, counted in rows of block evaluations: 2 B L for the two runs, and
U B (L - l) for the units of layer l, where the first block computes only what comes after the site.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.analysis.patching.block_by_block import BlockByBlock, patch_each
from prisma.analysis.patching.units import Source, Units, chosen_units
from prisma.batching import measure_runs, runs_per_pass
from prisma.edits import Set
from prisma.metrics import Metric
from prisma.runs import Model, in_steps, run


@dataclass(frozen=True)
class PatchedRuns:
    """Logits of the patched runs [cell, image, class], layer by layer, and of the target run itself [image, class]."""

    patched: Tensor
    logits: Tensor
    cells: Tensor  # [layer, unit], bool: which were patched

    def measure(self, metric: Metric) -> Tensor:
        """The metric of every patched run [image, layer, unit]; NaN of cells that were not patched.

        It sees all images of a cell at once, in order, and all cells at once if it takes several runs.
        """
        everywhere = self.logits.new_full((*self.cells.shape, len(self.logits)), torch.nan)
        if len(self.patched):
            values = measure_runs(metric, self.patched)
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
        batch: inputs per pass at most; by default as `runs_per_pass` chooses.
        cells: [layer, unit], bool: which units are patched; by default all.

    Raises:
        PrismaError: `batch` is below 1.
    """
    size, one_pass = runs_per_pass(model, batch), _block_by_block if in_steps(model, units.site) else _whole_runs
    chosen = chosen_units(cells, len(units.sites), inputs.device)
    parts = [
        one_pass(model, inputs[rows], units, source(rows), size, chosen)
        for rows in (slice(i, i + size) for i in range(0, len(inputs), size))
    ]
    by_layer, logits = zip(*parts, strict=True)
    if cells is None:
        cells = torch.ones(len(units.sites), len(by_layer[0][0]), dtype=torch.bool)
    patched = [torch.cat(of_layer, dim=1) for of_layer in zip(*by_layer, strict=True)]
    return PatchedRuns(torch.cat(patched), torch.cat(logits), cells)


def _block_by_block(
    model: Model, inputs: Tensor, units: Units, source: Source, size: int, chosen: Sequence[Tensor | None]
) -> tuple[list[Tensor], Tensor]:
    """Logits [unit, pair, class] of each layer's patched runs and [pair, class] of the target run, for one pass."""
    return BlockByBlock(model, inputs, units, source, size, chosen).logits()


def _whole_runs(
    model: Model, inputs: Tensor, units: Units, source: Source, size: int, chosen: Sequence[Tensor | None]
) -> tuple[list[Tensor], Tensor]:
    """As `_block_by_block`, by whole runs, each of one unit and all pairs of the pass."""

    def rest(site: str, patched: Tensor, pair: Tensor) -> Tensor:
        return run(model, inputs[pair], {site: Set(patched)})

    logits, own = record(model, inputs, units.sites)
    patched = []
    for layer, site in enumerate(units.sites):
        masks, new = units.masks(own[site], chosen[layer]), source.value(layer)
        nothing = logits.new_empty(0, *logits.shape)
        patched.append(patch_each(masks, own[site], new, len(inputs), partial(rest, site)) if len(masks) else nothing)
    return patched, logits
