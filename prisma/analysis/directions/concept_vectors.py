"""Concept vectors: would the answer rise if an activation moved towards a concept?

A *concept vector* v is the direction of a linear classifier that tells images of a concept from random images, by their
vectors at a place (the mean over its tokens). An image's *sensitivity* is the derivative of a metric along it:

    S = d metric(h + t v) / dt  at t = 0,  with v added to every token of the place

and the TCAV score is the share of images with S > 0. Any classifier has a direction, and one of random images against
other random images too. So each is made many times, with other random images, and the concept's scores are compared
with those of random sets by a two-sided t-test.

Source: Kim et al. 1711.11279 (TCAV). Here the classifier is a ridge regression, which has one solution.

Shapes: B image, D draw, F feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.ridge import RidgeSums
from prisma.analysis.directions.places import Place, PlacedRuns
from prisma.analysis.directions.steering import mean_vectors
from prisma.analysis.result import Result
from prisma.analysis.statistics import welch
from prisma.batching import measure_rows
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.view.figures.charts import draw_bars
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD_OUT = 5
"""Every so many-th image is kept to measure a classifier's accuracy with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptVectors(Result):
    """How the metric changes along concept vectors, and along those of random sets, for each image and draw.

    `scores` are TCAV scores. They mean something only where `accuracy` is well above 1/2, where the p-value is small,
    and where several concepts were tried: below 0.05 divided by their number.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sensitivity": ("image", "draw"),
        "random_sensitivity": ("image", "draw"),
        "accuracy": ("draw",),
        "random_accuracy": ("draw",),
        "vectors": ("draw", "feature"),
    }

    sensitivity: Tensor  # derivative of the metric along the unit concept vector
    random_sensitivity: Tensor  # the same along vectors of random images against other random images
    accuracy: Tensor  # of each classifier, on images that it was not trained with; 1/2 by chance
    random_accuracy: Tensor
    vectors: Tensor  # unit vectors

    @property
    def scores(self) -> Tensor:
        """TCAV score of each draw [draw]: the share of images with a positive sensitivity; one of zero counts half."""
        return _positive(self.sensitivity)

    @property
    def random_scores(self) -> Tensor:
        """The same of the random sets [draw]."""
        return _positive(self.random_sensitivity)

    def p_value(self) -> float:
        """How likely are such scores if the concept were a random set: a two-sided t-test over draws (`welch`).

        Draws share images, so that they are less independent than the test takes them to be.
        """
        return welch(self.scores, self.random_scores)

    def report(self, classes: Sequence[str] = ()) -> str:
        """The scores of the concept and of random sets, the p-value and the classifiers' accuracy."""
        rows = {"concept": (self.scores, self.accuracy), "random sets": (self.random_scores, self.random_accuracy)}
        lines = [
            f"{name}: TCAV score {x.mean():.2f} (standard deviation {x.std():.2f} over draws), accuracy {a.mean():.2f}"
            for name, (x, a) in rows.items()
        ]
        return "\n".join([*lines, f"p-value of a difference: {self.p_value():.2g}"])

    def plot(self, array: str | None = None) -> "Figure":
        """A bar for the concept's scores and one for those of random sets; or a picture of another array."""
        if array is not None:
            return super().plot(array)
        values = torch.stack([self.scores, self.random_scores])
        label = "TCAV score, with its standard deviation over draws"
        title = f"concept vectors at {self.metadata['site']}"
        return draw_bars(values.mean(1), ["concept", "random sets"], spread=values.std(1), title=title, label=label)


def _positive(sensitivity: Tensor) -> Tensor:
    return ((sensitivity.double().sign() + 1) / 2).mean(0)


@dataclass(frozen=True)
class Classifiers:
    """How the classifiers of a concept are made.

    Raises:
        PrismaError: fewer than two draws, or a negative alpha.
    """

    draws: int = 20  # classifiers of the concept, and of random sets
    alpha: float = 1.0  # the penalty of the ridge regression
    seed: int = 0  # of which images each of them is trained with

    def __post_init__(self) -> None:
        if self.draws < 2 or self.alpha < 0:
            raise PrismaError(
                f"expected two draws or more, and alpha of 0 or more; found {self.draws} and {self.alpha}"
            )


@dataclass(frozen=True, eq=False)
class Concept:
    """The vectors of a concept and of random sets, with which images are read."""

    vectors: Tensor  # [draw, feature]
    random_vectors: Tensor
    accuracy: Tensor  # [draw]
    random_accuracy: Tensor
    place: Place
    settings: Mapping[str, Any]

    def read(self, model: ViT, images: Tensor, metric: Metric, *, batch: int | None = None) -> ConceptVectors:
        """The sensitivities of other images. Arguments, errors and result are those of `concept_vectors`."""
        slope = _slopes(PlacedRuns(model, images, self.place, batch), metric)
        return ConceptVectors(
            metadata={"analysis": "concept_vectors", **self.place.metadata, **self.settings},
            sensitivity=slope @ self.vectors.to(slope).mT,
            random_sensitivity=slope @ self.random_vectors.to(slope).mT,
            accuracy=self.accuracy.to(slope),
            random_accuracy=self.random_accuracy.to(slope),
            vectors=self.vectors.to(slope),
        )


@guarded
@torch.inference_mode(False)  # the caller may be in it
def concept_vectors(
    model: ViT,
    images: Tensor,
    metric: Metric,
    concept_images: Tensor,
    random_images: Tensor,
    site: str,
    *,
    where: str | int = "class",
    head: int | None = None,
    draws: int = Classifiers.draws,
    alpha: float = Classifiers.alpha,
    seed: int = Classifiers.seed,
    batch: int | None = None,
) -> ConceptVectors:
    """Would the answer rise if an activation moved towards a concept, and more often than towards a random set?

    `scores` [draw] are the shares of images whose metric rises along the concept vector: 1 if it rises for all, 0 if it
    falls for all. Random sets of images have scores too, far from 1/2 as well, so compare with `random_scores`, by
    `p_value()`; and look at `accuracy`, without which there is no concept at this place.

    Args:
        images: the images whose answer is asked about. metric: logits [batch, class] -> one number per image.
        concept_images: images that show the concept, ten or more.
        random_images: any others, at least twice as many, from which each draw takes two sets.
        site: the full name of a site with features. where, head: as in `steering`.
        draws: classifiers of the concept, and of random sets. seed: of which images each of them is trained with.
        alpha: the penalty of the ridge regression.
        batch: images in one pass; by default as many as fit in 256 MiB.

    Returns:
        `sensitivity` and `random_sensitivity` [image, draw], in units of the metric per unit of length; `accuracy` and
        `random_accuracy` [draw]; `vectors` [draw, feature].

    Raises:
        PrismaError: fewer images than that, fewer than two draws, a negative alpha; no such site, head or tokens; or a
            metric without a gradient.

    Source: Kim et al. 1711.11279.
    """
    place, classifiers = Place.of(model, site, where, head), Classifiers(draws, alpha, seed)
    concept = find_concept(model, concept_images, random_images, place, classifiers, batch=batch)
    return concept.read(model, images, metric, batch=batch)


def find_concept(
    model: ViT,
    concept_images: Tensor,
    random_images: Tensor,
    place: Place,
    classifiers: Classifiers,
    *,
    batch: int | None = None,
) -> Concept:
    """The vectors of a concept, for `Concept.read`: the half of `concept_vectors` that learns, with its errors."""
    n = len(concept_images)
    if n < 10 or len(random_images) < 2 * n:
        raise PrismaError(
            f"expected 10 concept images or more, and twice as many random ones; found {n} and {len(random_images)}"
        )
    own, others = (mean_vectors(model, x, place, batch).double() for x in (concept_images, random_images))
    generator = torch.Generator().manual_seed(classifiers.seed)
    found = dict[str, list[tuple[Tensor, Tensor]]](own=[], random=[])
    for _ in range(classifiers.draws):
        first, second = others[torch.randperm(len(others), generator=generator)[: 2 * n].to(others.device)].split(n)
        found["own"].append(_classifier(own, first, classifiers.alpha))
        found["random"].append(_classifier(second, first, classifiers.alpha))
    vectors, accuracy = ({k: torch.stack([x[i] for x in xs]) for k, xs in found.items()} for i in (0, 1))
    settings = {**asdict(classifiers), "concept_images": n}
    return Concept(vectors["own"], vectors["random"], accuracy["own"], accuracy["random"], place, settings)


def _classifier(positive: Tensor, negative: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The unit vector towards the positive samples [feature], and the accuracy on samples that were kept."""
    x = torch.cat([positive, negative])
    label = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).long().to(x.device)
    kept = torch.arange(len(x), device=x.device) % HELD_OUT == 0
    sums = RidgeSums(x.shape[1], 2)
    sums.add(x[~kept, None], label[~kept])
    weight, bias = sums.solve(alpha)
    margin = (x[kept] @ weight.mT + bias).diff(dim=1)[:, 0] * (2 * label[kept] - 1)
    return F.normalize(weight[1], dim=0), ((margin.sign() + 1) / 2).mean()


def _slopes(runs: PlacedRuns, metric: Metric) -> Tensor:
    """The gradient of the metric by the place's vectors, summed over its tokens [image, feature]."""
    total, found = len(runs.images), list[Tensor]()
    for rows in torch.arange(total, device=runs.images.device).split(runs.size):
        with torch.enable_grad():
            values = runs.values[rows].clone().requires_grad_()
            numbers = measure_rows(metric, runs.logits(values, rows), rows, total)
            if not numbers.requires_grad:
                raise PrismaError(f"expected a metric that has a gradient; found {metric!r:.80}, which has none")
            found.append(torch.autograd.grad(numbers.sum(), values)[0].sum(1))
    return exact(torch.cat(found))
