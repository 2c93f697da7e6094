"""Steering: how does the answer change when a direction is added to an activation, and by how much of it?

    effect[dose] = mean over images of metric(logits of the run in which h becomes h + dose * direction at a place)

A curve over doses, and not one dose: a direction that means something moves the metric steadily from the first small
dose on, while any vector that is long enough breaks a model. Beside it are random directions of the same length.

Sources: Turner et al. 2308.10248 (activation addition); Rimsky et al. 2312.06681 (differences of means).

Shapes: B image, F feature.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded, record
from prisma.analysis.directions.places import Place, PlacedRuns
from prisma.analysis.result import Effect
from prisma.batching import inputs_per_pass, measure_runs
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.view.figures.doses import draw_doses
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering(Effect):
    """The metric at every dose of a direction, and of random directions of the same length.

    `effect` is the mean over images, and `interval()` its bootstrap interval. Read the whole curve: a dose is safe to
    interpret where the random directions still leave the metric as it is.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("dose",),
        "stderr": ("dose",),
        "values": ("image", "dose"),
        "random": ("image", "control", "dose"),
        "doses": ("dose",),
    }

    values: Tensor
    random: Tensor
    doses: Tensor  # factors of the direction

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"dose": [f"{dose:g}" for dose in self.doses.tolist()]}

    def report(self, classes: Sequence[str] = ()) -> str:
        """A line for each dose: the metric with its interval, and the range of the random directions."""
        (low, high), control = self.interval(), self.random.double().mean(0)
        rows = zip(self.doses, self.effect, low, high, control.amin(0), control.amax(0), strict=True)
        return "\n".join(
            f"dose {dose:g}: {mean:.2f} ({a:.2f} to {b:.2f}); random directions {c:.2f} to {d:.2f}"
            for dose, mean, a, b, c, d in rows
        )

    def plot(self, array: str | None = None) -> "Figure":
        """The dose-response curve with its interval, and those of the random directions; or another array."""
        if array not in (None, "effect"):
            return super().plot(array)
        title = f"steering at {self.metadata['site']}"
        return draw_doses(self.doses, self.effect, self.interval(), self.random.double().mean(0), title=title)


@guarded
@torch.no_grad()
def steering(
    model: ViT,
    images: Tensor,
    metric: Metric,
    direction: Tensor,
    site: str,
    *,
    doses: Tensor | None = None,
    where: str | int = "class",
    head: int | None = None,
    controls: int = 5,
    seed: int = 0,
    batch: int | None = None,
) -> Steering:
    """How does the metric change when a direction is added to an activation, dose by dose?

    `effect` [dose] is the metric's mean over images. A direction that the model uses gives a curve that leaves those of
    the random directions at small doses already; far out, every direction changes the answer.

    Args:
        metric: logits [batch, class] -> one number per image.
        direction: [feature]; a dose is a factor of it, so that 1 adds all of it. `mean_difference` makes one.
        site: the full name of a site with features, such as "blocks.3.resid_post".
        doses: [dose]; by default nine from -2 to 2.
        where: the tokens, to each of which it is added: "class", "registers", "patches", "all", or a token by its
            place. head: which head, where the site has heads.
        controls: the number of random directions of the same length. seed: of these.
        batch: images in one pass; by default as many as fit in 256 MiB.

    Returns:
        `effect` and `stderr` [dose], `values` [image, dose], `random` [image, control, dose], in units of the metric.

    Raises:
        PrismaError: no such site, head or tokens; a direction of another length, or of zeros; no doses or controls.

    Sources: Turner et al. 2308.10248; Rimsky et al. 2312.06681.
    """
    place = Place.of(model, site, where, head)
    runs = PlacedRuns(model, images, place, batch)
    features = runs.values.shape[-1]
    if direction.shape != (features,) or not direction.any():
        found = "zeros" if direction.shape == (features,) else str(list(direction.shape))
        raise PrismaError(f"expected a direction [{features}] that is not zero; found {found}")
    chosen = torch.linspace(-2, 2, 9) if doses is None else doses
    if chosen.ndim != 1 or not len(chosen) or controls < 1:
        raise PrismaError(
            f"expected doses [dose], and one random direction or more; found {list(chosen.shape)} and {controls}"
        )
    random = torch.randn(controls, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    length = direction.double().norm()
    added = [direction, *(length * x / x.norm() for x in random)]
    values = torch.stack([_curve(runs, metric, x.to(runs.values), chosen) for x in added], dim=1)
    return Steering(
        metadata={"analysis": "steering", **place.metadata, "length": float(length), "seed": seed},
        values=values[:, 0],
        random=values[:, 1:],
        doses=exact(chosen).clone(),  # the caller's tensor stays the caller's
    )


def _curve(runs: PlacedRuns, metric: Metric, direction: Tensor, doses: Tensor) -> Tensor:
    """The metric [image, dose]."""
    return measure_runs(metric, torch.stack(list(steered(runs, direction, doses)))).mT


@torch.no_grad()
def steered(runs: PlacedRuns, direction: Tensor, doses: Tensor) -> Iterator[Tensor]:
    """The logits [image, class] of the runs with each dose of a direction [feature] added at their place."""
    for dose in doses.tolist():
        yield runs.all_logits(runs.values + dose * direction)


@guarded
@torch.no_grad()
def mean_difference(
    model: ViT,
    images: Tensor,
    chosen: Tensor,
    site: str,
    *,
    where: str | int = "class",
    head: int | None = None,
    batch: int | None = None,
) -> Tensor:
    """The mean vector of some images minus that of the others [feature]: a direction to steer by.

    Args:
        chosen: [image], bool: which images have the property. Others: as in `steering`.

    Raises:
        PrismaError: all images are chosen, or none; or as `steering`.
    """
    vectors = mean_vectors(model, images, Place.of(model, site, where, head), batch)
    if chosen.shape != images.shape[:1] or chosen.dtype != torch.bool or chosen.all() or not chosen.any():
        raise PrismaError(f"expected true for some of {len(images)} images and false for others; found {chosen!r:.80}")
    mask = chosen.to(vectors.device)
    return (vectors[mask].double().mean(0) - vectors[~mask].double().mean(0)).to(vectors)


@torch.no_grad()
def mean_vectors(model: ViT, images: Tensor, place: Place, batch: int | None = None) -> Tensor:
    """The mean over a place's tokens of each image [image, feature], in float32 at least."""
    parts = images.split(inputs_per_pass(model, batch))
    found = [place.read(model.config, record(model, some, place.site, stop=True)[1]).mean(1) for some in parts]
    return torch.cat(found)
