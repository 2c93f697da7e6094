"""Activation patching, exactly: what does the answer become when one part holds what it computed for another image?

    effect[layer, unit] = mean over pairs of metric(logits of the run on `target` with unit <- its value on `donor`)

Sources: Vig et al. 2004.12265; Meng et al. 2202.05262 (ROME); Wang et al. 2211.00593 (IOI); Zhang & Nanda 2309.16042.

How the runs share what they have in common: `prisma.analysis.patching.sweeping`.

A unit is a head, a token, a group of neurons, or a whole component.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.analysis.patching.sweeping import SourceRun, Units, patched_runs
from prisma.analysis.result import Effect, PairedEffect
from prisma.batching import inputs_per_pass
from prisma.edits import Index, Set
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.metrics import Metric, measure
from prisma.runs import Model, finish, record
from prisma.sites import Tap, matching
from prisma.view.figures.charts import draw_bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationPatching(PairedEffect):
    """The metric of every patched run, and of the two runs that are not patched."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "{axis}"),
        "stderr": ("layer", "{axis}"),
        "values": ("image", "layer", "{axis}"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    values: Tensor  # [image, layer, unit]: the metric of each pair's patched run

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def unchanged(self) -> Tensor:
        return self.changed_run.mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchedSets(Effect):
    """The metric of every run with a patched set; `metadata["sets"]` has their names."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"effect": ("set",), "stderr": ("set",), "values": ("image", "set")}

    values: Tensor

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"set": self.metadata["sets"]}

    def plot(self, array: str | None = None) -> "Figure":
        """The mean of each set as a bar with its name, and its standard error; or another array."""
        if array not in (None, "effect"):
            return super().plot(array)
        spread = self.stderr if len(self.values) > 1 else None
        label = "mean of the metric over pairs, and its standard error"
        return draw_bars(self.effect, self.metadata["sets"], spread=spread, title="patch_sets", label=label)


def sweep(
    model: Model,
    clean: Tensor,
    corrupt: Tensor,
    site: str,
    metric: Metric,
    *,
    into: str = "clean",
    axis: str | None = None,
    batch: int | None = None,
) -> Tensor:
    """`patch(...).effect`: the mean over pairs of the metric of every patched run, [layer, head] or [layer, token].

    Args and errors: as in `patch`.
    """
    return activation_patching(model, clean, corrupt, site, metric, into=into, axis=axis, batch=batch).effect


@torch.no_grad()
def activation_patching(
    model: Model,
    clean: Tensor,
    corrupt: Tensor,
    site: str,
    metric: Metric,
    *,
    into: str = "clean",
    axis: str | None = None,
    groups: int | Sequence[Sequence[int]] | None = None,
    batch: int | None = None,
) -> ActivationPatching:
    """Patch every unit of a site in every layer, one at a time.

    Args:
        clean, corrupt: pairs of inputs, as in `record`, of the same shape.
        site: a site of every block without its prefix: `"attn.z"`, `"resid_post"`, `"mlp_out"`, `"mlp.post"`.
        metric: logits [batch, class] -> one finite number per pair [batch]. It sees all pairs at once, in order.
        into: `"clean"` patches corrupt values into the clean run (noising), `"corrupt"` the other way (denoising).
        axis: what the units are: an axis of the site such as `"head"`, `"token"`, `"query"` or `"d_mlp"`, or
            `"component"` for the whole of it; by default the heads of a site that has them, else the tokens.
        groups: units of several indices of that axis: so many groups of neighbours, or the indices of each group.
        batch: at most so many inputs in one pass, which bounds the memory; by default as many as have 256 MiB of
            activations (`PASS_BYTES`).

    Returns:
        `.effect`, `.stderr` [layer, unit], `.values` [image, layer, unit], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, the site, axis or index does not exist, or the metric is not one finite number per
            pair.
    """
    target, source = target_and_source(clean, corrupt, into)
    units = Units(model, site, axis, groups)
    sources: list[SourceRun] = []

    def source_run(rows: slice) -> SourceRun:
        sources.append(SourceRun(model, source[rows], units))
        return sources[-1]

    found = patched_runs(model, target, units, source_run, batch)
    of = {into: found.logits, source_of(into): torch.cat([run.logits() for run in sources])}
    return ActivationPatching(
        metadata={
            "analysis": "activation_patching",
            "site": units.site,
            "axis": units.axis,
            "into": into,
            "pairs": len(clean),
        },
        values=found.measure(metric),
        clean=measure(metric, of["clean"]),
        corrupt=measure(metric, of["corrupt"]),
    )


patch = activation_patching
"""`prisma.patch`: the short name, for notebooks."""

Cells = Mapping[str, Mapping[str, Index]]
"""Full site name or glob -> where, as `Edit.at` takes it; {} for the whole site."""


@torch.no_grad()
def patch_sets(
    model: Model,
    clean: Tensor,
    corrupt: Tensor,
    sets: Mapping[str, Cells],
    metric: Metric,
    *,
    into: str = "clean",
    batch: int | None = None,
) -> PatchedSets:
    """Patch arbitrary sets of cells, all cells of a set at once.

    Each run starts at the first block that its set touches.

    Args:
        sets: name -> cells: `{"early": {"blocks.0.attn.z": {"head": [1, 3]}, "blocks.1.mlp_out": {"token": 0}}}`.
        Others: as in `patch`.

    Raises:
        PrismaError: as in `patch`; also an axis that a site does not have (or `batch`: a set is of every pair), or an
            index out of range.
    """
    target, source = target_and_source(clean, corrupt, into)
    if not sets:
        raise PrismaError("expected sets of cells to patch, found none")
    size, known = inputs_per_pass(model, batch), site_names(model.config)
    where = {name: _by_site(cells, known) for name, cells in sets.items()}
    starts = {name: min(map(_block_of, cells), default=0) for name, cells in where.items()}
    streams = [f"blocks.{layer}.resid_pre" for layer in set(starts.values()) if layer]
    donated = sorted({site for cells in where.values() for site in cells})
    logits: dict[str, list[Tensor]] = {name: [] for name in sets}
    for x, y in zip(target.split(size), source.split(size), strict=True):
        values, own = record(model, y, donated, stop=True)[1], record(model, x, streams, stop=True)[1]
        for name, cells in where.items():
            tap = Tap(
                frozenset(),
                {site: tuple(Set(values[site]).at(**at) for at in places) for site, places in cells.items()},
            )
            start = starts[name]
            stream = own[f"blocks.{start}.resid_pre"] if start else model.embed(x, tap)
            logits[name].append(finish(model, stream, x, start=start, tap=tap))
    return PatchedSets(
        metadata={"analysis": "patch_sets", "into": into, "sets": list(sets), "pairs": len(clean)},
        values=torch.stack([measure(metric, torch.cat(parts)) for parts in logits.values()], dim=1),
    )


def _by_site(cells: Cells, known: Sequence[str]) -> dict[str, list[Mapping[str, Index]]]:
    """Full site name -> where: all the places that a set names, under one pattern or several."""
    places: dict[str, list[Mapping[str, Index]]] = {}
    for pattern, at in cells.items():
        if "batch" in at:
            raise PrismaError(f"a set is patched in every pair, so it has no axis 'batch'; found {dict(at)}")
        for site in matching(pattern, known):
            places.setdefault(site, []).append(at)
    return places


def _block_of(site: str) -> int:
    """The block that a run must start from to change a site: 0 for what comes before the blocks."""
    return int(site.split(".")[1]) if site.startswith("blocks.") else 0
