"""Activation patching, exactly: what happens to the metric when one part takes the value it has on another image?

    effect[layer, unit] = mean over pairs of metric(logits of the target run in which the unit has its source value)

The target run is the one that is changed, the source run the one that the new value comes from (`into` says which is
which). A unit is a head, a token, a group of neurons, or a whole component.

Sources: Vig et al. 2004.12265; Meng et al. 2202.05262 (ROME); Wang et al. 2211.00593 (IOI); Zhang & Nanda 2309.16042.

The runs share their common computations: `prisma.analysis.patching.sweeping`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded, record
from prisma.analysis.patching.low_precision import expect_precision, swept
from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.analysis.patching.sweeping import PatchedRuns, patched_runs
from prisma.analysis.patching.units import SourceRun, Units
from prisma.analysis.result import Effect, PairedEffect
from prisma.batching import inputs_per_pass, measure_runs
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.metrics import Metric, measure
from prisma.runs import Model, check_pixels, finish, in_steps, run
from prisma.selection import Index
from prisma.sites import Tap, matching
from prisma.view.figures.charts import draw_bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationPatching(PairedEffect):
    """The metric of every patched run, and of the two runs that are not patched.

    `effect` is the metric itself, and `stderr` its error: compare it with the means of `clean` and `corrupt`. `change`
    is by how much a unit moves the metric, with `change_stderr` and `interval("change")`. In `normalised()` 0 means
    that the unit changes nothing and 1 that it carries the whole difference.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "{axis}"),
        "stderr": ("layer", "{axis}"),
        "values": ("image", "layer", "{axis}"),
        "clean": ("image",),
        "corrupt": ("image",),
        "exact": ("layer", "{axis}"),
    }

    values: Tensor  # [image, layer, unit]: the metric of each pair's patched run
    exact: Tensor | None = None  # 1 where a cell of a sweep in low precision was computed exactly

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def changes(self) -> Tensor:
        run = self.changed_run.view(-1, *[1] * (self.values.ndim - 1))
        return self.values - run


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchSets(Effect):
    """The metric of every run in which one set of cells is patched; `metadata["sets"]` has the names of the sets."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"effect": ("set",), "stderr": ("set",), "values": ("image", "set")}

    values: Tensor

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"set": self.metadata["sets"]}

    def plot(self, array: str | None = None) -> "Figure":
        """A bar for the mean of each set, with its standard error; or a picture of another array."""
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
    precision: str | None = None,
    exact_top: int = 0,
    batch: int | None = None,
) -> Tensor:
    """Which layer and head (or token) carries the difference between two images? The metric of every patched run.

    The short form of `activation_patching`: it returns the metric [layer, head] or [layer, token], mean over pairs. A
    cell that equals the metric of the unpatched run does nothing; a cell that comes close to the metric of the other
    run carries the difference.

    Args and errors: as in `activation_patching`, of whose result this is `.effect`.
    """
    told = {"into": into, "axis": axis, "precision": precision, "exact_top": exact_top, "batch": batch}
    return activation_patching(model, clean, corrupt, site, metric, **told).effect  # type: ignore[arg-type]


@guarded
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
    precision: str | None = None,
    exact_top: int = 0,
    batch: int | None = None,
) -> ActivationPatching:
    """Which part of the model carries the difference between two images?

    Every unit of a site (a head, a token, ...) in every layer is patched, one at a time: in the run on one image it
    gets the value that it has on the other image. If the metric moves from that of the one run to that of the other,
    the unit carries the difference; if it stays, the unit does not matter for it.

    Args:
        clean, corrupt: pairs of inputs, as in `record`, of the same shape.
        site: a site of every block without its prefix: `"attn.z"`, `"resid_post"`, `"mlp_out"`, `"mlp.post"`.
        metric: logits [batch, class] -> one finite number per pair [batch]. It sees all pairs at once, in order.
        into: `"clean"` patches corrupt values into the clean run (noising), `"corrupt"` the other way (denoising).
        axis: what the units are: an axis of the site such as `"head"`, `"token"`, `"query"` or `"d_mlp"`, or
            `"component"` for the whole of it; by default the heads of a site that has them, else the tokens.
        groups: units of several indices along that axis: the number of groups of neighbours, or the indices of each.
        precision: of all runs but the exact ones: "bfloat16" is several times faster where the hardware has units for
            it; by default that of the model, in which every cell is exact.
        exact_top: with a precision, so many of the cells with the largest changes are computed exactly, and every cell
            that is within the measured error (`metadata["error"]`) of the last of them.
        batch: inputs per pass at most, which bounds the memory; by default as many as fit in 256 MiB, or on a GPU in an
            eighth of its free memory.

    Returns:
        `.effect`, `.stderr` [layer, unit], `.values` [image, layer, unit], `.clean` and `.corrupt` [image]; with a
        precision also `.exact` [layer, unit], 1 for the cells that were computed exactly.

    Raises:
        PrismaError: shapes differ, the site, axis or index does not exist, or the metric is not one finite number per
            pair.
    """
    target, source = target_and_source(clean, corrupt, into)
    check_pixels(model, clean)
    units = Units(model, site, axis, groups)
    expect_precision(precision, exact_top)

    found = swept(model, partial(_runs, target, source, units, batch), metric, precision, exact_top)
    of = {into: found.target, source_of(into): found.source}
    low = {} if precision is None else {"precision": precision, "exact_top": exact_top, "error": found.error}
    metadata = {"site": units.site, "axis": units.axis, "into": into, "pairs": len(clean), **low}
    return ActivationPatching(
        metadata={"analysis": "activation_patching", **metadata},
        values=found.values,
        clean=measure(metric, of["clean"]),
        corrupt=measure(metric, of["corrupt"]),
        exact=None if found.exact is None else found.exact.float(),
    )


def _runs(
    target: Tensor, source: Tensor, units: Units, batch: int | None, model: Model, cells: Tensor | None
) -> tuple[PatchedRuns, Tensor]:
    """The patched runs, and the logits of the source run. Inputs are brought into the precision of the model."""
    sources: list[SourceRun] = []
    kind = next(model.parameters()).dtype
    target, source = (x.to(kind) if x.is_floating_point() else x for x in (target, source))

    def source_run(rows: slice) -> SourceRun:
        sources.append(SourceRun(model, source[rows], units))
        return sources[-1]

    found = patched_runs(model, target, units, source_run, batch, cells)
    return found, torch.cat([run.logits for run in sources])


patch = activation_patching
"""`prisma.patch`: the short name, for notebooks."""

Cells = Mapping[str, Mapping[str, Index]]
"""Full site name or glob -> where, as `Edit.at` takes it; {} for the whole site."""


@guarded
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
) -> PatchSets:
    """What happens to the metric when several parts are patched together?

    Each set names cells (sites, and indices along their axes), which are all patched at once, one run per set. Compare
    a set's `effect` with the metric of the unpatched run, or with the effects of its parts: the difference to their sum
    is what they do together. Each run starts at the first block that its set changes.

    Args:
        sets: name -> cells: `{"early": {"blocks.0.attn.z": {"head": [1, 3]}, "blocks.1.mlp_out": {"token": 0}}}`.
        Others: as in `activation_patching`.

    Raises:
        PrismaError: as in `activation_patching`; also an axis that a site does not have, an index out of range, or the
            axis `batch` (a set is patched in every pair).
    """
    target, source = target_and_source(clean, corrupt, into)
    if not sets:
        raise PrismaError("expected sets of cells to patch; found none")
    size, known, steps = inputs_per_pass(model, batch), site_names(model.config), in_steps(model, "resid_pre")
    where = {name: _by_site(cells, known) for name, cells in sets.items()}
    starts = {name: min(map(_block_of, cells), default=0) for name, cells in where.items()}
    streams = [f"blocks.{layer}.resid_pre" for layer in set(starts.values()) if layer]
    donated = sorted({site for cells in where.values() for site in cells})
    logits: dict[str, list[Tensor]] = {name: [] for name in sets}
    for x, y in zip(target.split(size), source.split(size), strict=True):
        values = record(model, y, donated, stop=True)[1]
        own = record(model, x, streams, stop=True)[1] if steps else {}
        for name, cells in where.items():
            edits = {site: tuple(Set(values[site]).at(**at) for at in places) for site, places in cells.items()}
            if not steps:
                logits[name].append(run(model, x, edits))
                continue
            tap, start = Tap(edit=edits), starts[name]
            stream = own[f"blocks.{start}.resid_pre"] if start else model.embed(x, tap)
            logits[name].append(finish(model, stream, x, start=start, tap=tap))
    return PatchSets(
        metadata={"analysis": "patch_sets", "into": into, "sets": list(sets), "pairs": len(clean)},
        values=measure_runs(metric, torch.stack([torch.cat(parts) for parts in logits.values()])).mT,
    )


def _by_site(cells: Cells, known: Sequence[str]) -> dict[str, list[Mapping[str, Index]]]:
    """Full site name -> every place in it that a set names, under one pattern or several."""
    places: dict[str, list[Mapping[str, Index]]] = {}
    for pattern, at in cells.items():
        if "batch" in at:
            raise PrismaError(f"a set is patched in every pair, so it has no axis 'batch'; found {dict(at)}")
        for site in matching(pattern, known):
            places.setdefault(site, []).append(at)
    return places


def _block_of(site: str) -> int:
    """The block from which a run must start to change a site: 0 for sites before the blocks."""
    return int(site.split(".")[1]) if site.startswith("blocks.") else 0
