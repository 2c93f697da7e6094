"""What patching asks: which pair of images, which run is changed, what is measured, and how much of the gap is closed.

The classes do not depend on the training step, so that every checkpoint is asked the same question: by default they are
what the final weights answer for the two images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma.inventory import site_names
from prisma.metrics import Logit, LogitDiff, Metric, Probability, measure
from prisma.vit import ViT
from prisma_app.answers import TOKEN_SITES
from prisma_app.library import Scene

HEADS = "attn.z"
"""The site of the head map."""
SAME = 1e-6
"""Two runs whose metrics differ by less, as a share of the larger one or of 1, differ by rounding alone."""


@dataclass(frozen=True, eq=False)
class Question:
    """A pair of inputs [1, channel, height, width], and what is asked about it."""

    model: ViT
    clean: Tensor
    corrupt: Tensor
    into: str  # the run that is changed
    site: str  # of the token map
    metric: Metric
    name: str  # of the metric, in words
    target: int  # class
    against: int | None  # class; None for a model with one class

    @property
    def config(self) -> ViTConfig:
        return self.model.config

    @property
    def changed(self) -> Tensor:
        """The input of the run that is changed."""
        return target_and_source(self.clean, self.corrupt, self.into)[0]

    @property
    def source(self) -> Tensor:
        """The input of the run that new values come from."""
        return target_and_source(self.clean, self.corrupt, self.into)[1]

    def state(self) -> dict[str, Any]:
        """The keys of an address that ask this."""
        return {"into": self.into, "site": self.site, "target": self.target, "against": self.against}

    def logits(self) -> dict[str, Tensor]:
        """Run -> its logits [class]."""
        with torch.no_grad():
            return {"clean": self.model(self.clean)[0], "corrupt": self.model(self.corrupt)[0]}

    def measured(self, logits: Tensor) -> float:
        """The metric of logits [class]. Raises PrismaError if they are not finite."""
        return measure(self.metric, logits[None]).item()

    def gap(self, runs: dict[str, float]) -> float | None:
        """How far the metric of the source run is from that of the changed run; None if they do not differ."""
        gap = runs[source_of(self.into)] - runs[self.into]
        return None if abs(gap) <= SAME * max(1.0, *map(abs, runs.values())) else gap

    def recovered(self, values: Tensor, runs: dict[str, float]) -> Tensor | None:
        """Metrics after a patch as shares of the gap: 0 changes nothing, 1 gives the other run's metric.

        None if the two runs do not differ, so that there is no gap.
        """
        gap = self.gap(runs)
        return None if gap is None else (values - runs[self.into]) / gap


def question_of(scene: Scene) -> Question:
    """What a state asks. Raises PrismaError for an image, site or class that the model does not have."""
    state, config = scene.state, scene.config
    known = sites_of(config)
    if state.site not in known:
        raise PrismaError(f"expected a site of the token map among {', '.join(known)}; found {quoted(state.site, 40)}")
    clean, corrupt = scene.picture.x[None], scene.corrupt.x[None]
    target, against = _classes(scene, clean, corrupt)
    metric, name = _metric(state.metric, target, against, scene.subject.labels)
    return Question(scene.loaded.model, clean, corrupt, state.into, state.site, metric, name, target, against)


def sites_of(config: ViTConfig) -> list[str]:
    """The sites of the token map that a model has."""
    known = site_names(config)
    return [site for site in TOKEN_SITES if f"blocks.0.{site}" in known]


def metric_code(question: Question) -> str:
    """The Python that makes the metric."""
    if isinstance(question.metric, LogitDiff):
        return f"prisma.LogitDiff({question.target}, {question.against})"
    return f"prisma.{type(question.metric).__name__}({question.target})"


def _classes(scene: Scene, clean: Tensor, corrupt: Tensor) -> tuple[int, int | None]:
    """The two classes that are measured, checked."""
    state, count = scene.state, len(scene.subject.labels)
    for given in (state.target, state.against):
        scene.index("class", given, count)
    if state.target is not None and (state.against is not None or count == 1):
        return state.target, state.against
    with torch.no_grad():
        orders = [scene.subject.final.model(x)[0].argsort(descending=True).tolist() for x in (clean, corrupt)]
    target = state.target
    if target is None:
        target = next((c for c in orders[0] if c != state.against), orders[0][0])
    against = state.against
    if against is None:
        against = next((c for c in orders[1] if c != target), None)
    return target, against


def _metric(name: str, target: int, against: int | None, labels: Sequence[str]) -> tuple[Metric, str]:
    if name == "logit":
        return Logit(target), f"logit ({labels[target]})"
    if name == "probability":
        return Probability(target), f"probability ({labels[target]})"
    if against is None:
        raise PrismaError("expected a model with at least 2 classes for a difference of logits; found 1")
    return LogitDiff(target, against), f"logit ({labels[target]}) - logit ({labels[against]})"
