"""All methods of attribution on one model and data set, in one table, with the oracle and a random map as rows.

Shapes: B image, P patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attribution.attribute import attribute, baseline_of, predicted_logits
from prisma.analysis.attribution.games import TokenGame, absence_of
from prisma.analysis.attribution.map_checks import map_scores, map_sensitivity, rank_correlation, shuffled, stages_of
from prisma.analysis.attribution.map_curves import (
    area,
    curve_of,
    drawn_for_each,
    order_of,
    over_patches_of,
    points_of,
    random_curve,
)
from prisma.analysis.attribution.methods import METHODS, method_named
from prisma.analysis.attribution.questions import as_target, name_of
from prisma.analysis.border import guarded
from prisma.analysis.readings import Reading
from prisma.analysis.result import Result
from prisma.analysis.statistics import mean_interval
from prisma.errors import PrismaError
from prisma.metrics import Metric, Target
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("deletion", "insertion", "auroc", "mass", "rank", "sanity", "sensitivity")
ANY = 1e300
"""A completeness error that no map has: a map that adds up to something else is measured too."""
FEW = 200
"""Runs per image, by default, of methods that draw coalitions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompareMaps(Result):
    """Figures of every method, by image. NaN: the method was refused, there are no masks, or the figure does not apply.

    deletion, insertion: how much better than a random order, in the target's unit (`prisma.map_curves`); 0 is chance.
    auroc, mass, rank: agreement with the masks (`map_checks.map_scores`).
    sanity: rank correlation with the map of the same model with all weights shuffled; 0 is best.
    sensitivity: the largest relative change of the map under small noise; smaller is steadier.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(FIGURES, ("image", "method"))
    UNDEFINED: ClassVar[frozenset[str]] = frozenset(FIGURES)

    deletion: Tensor
    insertion: Tensor
    auroc: Tensor
    mass: Tensor
    rank: Tensor
    sanity: Tensor
    sensitivity: Tensor

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"method": self.metadata["methods"]}

    @cached_property
    def figures(self) -> Tensor:
        """[figure, method, 3]: mean over the images that have it, and the ends of its 95 % bootstrap interval."""
        values = torch.stack([self.arrays[name].double() for name in FIGURES], dim=1)
        low, high = mean_interval(values)
        return torch.stack([values.nanmean(0), low, high], dim=-1)

    def figure(self, name: str, method: str) -> Tensor:
        """One of `figures` [3]; NaN where no image has it."""
        return self.figures[FIGURES.index(name), self.metadata["methods"].index(method)]

    def rows(self) -> list[dict[str, str]]:
        """The table: a row for each method, with each figure and its interval."""
        table = []
        for method in self.metadata["methods"]:
            found = {name: self.figure(name, method) for name in FIGURES}
            cells = {
                name: "" if x.isnan().any() else f"{x[0]:.2f} ({x[1]:.2f} to {x[2]:.2f})" for name, x in found.items()
            }
            refused = not any(cells.values())
            table.append({"method": method, **cells, **({"deletion": "refused"} if refused else {})})
        return table

    def report(self, classes: Sequence[str] = ()) -> str:
        """The table as text."""
        rows = self.rows()
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        lines = [{name: name for name in widths}, *rows]
        return "\n".join("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip() for row in lines)

    def plot(self, array: str | None = None) -> "Figure":
        """The mean over images of each figure of each method; or of one array."""
        if array is not None:
            return super().plot(array)
        means = torch.stack([self.arrays[name].double().nanmean(0) for name in FIGURES], dim=1)
        names = {"method": self.metadata["methods"], "figure": list(FIGURES)}
        return draw(means, ("method", "figure"), title="maps compared: means over images", names=names)


@guarded
def compare_maps(
    model: ViT,
    images: Tensor,
    target: Metric | Reading | Target | None = None,
    *,
    coverage: Tensor | None = None,
    methods: Sequence[str] | None = None,
    samples: int = FEW,
    absent: str | None = None,
    points: int | None = None,
    orders: int = 1,
    seed: int = 0,
    batch: int | None = None,
) -> CompareMaps:
    """Which method's maps does this model follow, on these images?

    A method is as good as its rows are better than "random" and as near as they come to "oracle", the map of the true
    mask, which is a row where there are masks. The oracle need not be the best: a model may use what is not the object.

    Args:
        images: [image, channel, (frame,) height, width].
        target: as in `prisma.attribute`.
        coverage: [image, (time,) row, column], the share of each patch that the mask covers; None without masks.
        methods: names of `prisma.attribute`; by default all. Those that this model refuses are empty rows.
        samples: runs per image of methods that draw coalitions.
        absent, points, orders: of the curves, as in `prisma.map_curves`.
        seed: of what is drawn in maps, curves and noise, where image i has `seed + i`. Weights are shuffled by the same
            seed for all images, so that they are those of the same model.
        batch: runs in one pass.

    Returns:
        `deletion`, `insertion`, `auroc`, `mass`, `rank`, `sanity`, `sensitivity`, each [image, method];
        `report()` is the table.

    Raises:
        PrismaError: what `prisma.attribute` refuses of target and images; coverage of another shape; no such method.
    """
    if samples < 2:
        raise PrismaError(f"expected at least 2 samples; found {samples}")
    kind = absence_of(model.config, absent)
    asked = as_target(model, target, None if target is not None else predicted_logits(model, images, batch))
    named = list(METHODS) if methods is None else [name for name in methods if method_named(name)]
    fill, _ = baseline_of(images, None, many=False)
    game = TokenGame(model, images, fill, asked, batch, kind)
    explain = _Explainer(asked, samples, absent, seed, batch)
    maps = {name: explain.or_none(name, model, images) for name in named}
    covered = None if coverage is None else _covered(game, coverage)
    maps |= {} if covered is None else {"oracle": covered}
    maps["random"] = drawn_for_each((len(images), game.n_patches), seed).to(images)
    counts = points_of(game.n_patches, points)
    share = counts.double() / game.n_patches
    chance = {kind: area(random_curve(game, kind, counts, orders, seed), share) for kind in FIGURES[:2]}
    found = [_figures(name, one, game, chance, counts, covered, explain) for name, one in maps.items()]
    nothing = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    arrays = {name: torch.stack([row.get(name, nothing).double() for row in found], 1) for name in FIGURES}
    settings = {"samples": samples, "orders": orders, "seed": seed, "absent": game.absent, "target": name_of(asked)}
    return CompareMaps(metadata={"analysis": "compare_maps", "methods": list(maps), **settings}, **arrays)


@dataclass(frozen=True)
class _Explainer:
    """A method's maps over patches, with settings that are the same for all."""

    target: Metric | Reading
    samples: int
    absent: str | None
    seed: int
    batch: int | None

    def __call__(self, method: str, model: ViT, images: Tensor) -> Tensor:
        chosen = METHODS[method]
        found = attribute(
            model,
            images,
            self.target,
            method,
            absent=self.absent if chosen.removes else None,
            samples=min(self.samples, chosen.samples) or None,
            seed=self.seed,
            tolerance=ANY,
            batch=self.batch,
        )
        return found.patches.flatten(1)

    def or_none(self, method: str, model: ViT, images: Tensor) -> Tensor | None:
        """None where the method refuses the model."""
        try:
            return self(method, model, images)
        except PrismaError:
            if method == "integrated_gradients":  # which refuses nothing but what all refuse
                raise
            return None


def _covered(game: TokenGame, coverage: Tensor) -> Tensor:
    expected = [len(game.images), *(game.config.grid if game.config.grid[0] > 1 else game.config.grid[1:])]
    if list(coverage.shape) != expected:
        raise PrismaError(f"expected coverage {expected}, of the images' patches; found {list(coverage.shape)}")
    return over_patches_of(game, coverage).to(game.images)


def _figures(
    name: str,
    maps_BP: Tensor | None,
    game: TokenGame,
    chance: Mapping[str, Tensor],
    counts: Tensor,
    covered: Tensor | None,
    explain: _Explainer,
) -> dict[str, Tensor]:
    """The figures [image] of one row."""
    if maps_BP is None:
        return {}
    order, share, found = order_of(maps_BP, explain.seed), counts.double() / game.n_patches, dict[str, Tensor]()
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        found[kind] = sign * (area(curve_of(game, order, kind, counts), share) - chance[kind])
    if covered is not None:
        scores = map_scores(maps_BP, covered)
        found |= {"auroc": scores.auroc, "mass": scores.mass, "rank": scores.rank}
    if name in METHODS:
        other = explain(name, shuffled(game.vit, stages_of(game.vit), 0), game.images)
        found["sanity"] = rank_correlation(other, maps_BP)
        draws = {"draws": 2, "seed": explain.seed}
        found["sensitivity"] = map_sensitivity(game.vit, game.images, lambda m, x: explain(name, m, x), **draws).largest
    return found
