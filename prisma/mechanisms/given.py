"""What the steps of a mechanism card are given: a model, images of its task, and pairs of them.

Images are drawn at random by a seed, because a split may be in the order of its classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.data.task import Split, Task, coverage
from prisma.data.transform import Transform
from prisma.mechanisms.findings import Finding, rounded
from prisma.mechanisms.measures import MEASURES, OF_OBJECTIVES, Measure
from prisma.metrics import LogitDiff, Metric
from prisma.runs import run
from prisma.train.objectives import Objective
from prisma.vit import ViT

FEWEST_PAIRS = 8
"""Pairs, without which nothing is said about pairs."""
TRIED = 8
"""Images that are looked at for each pair."""


class DoesNotApplyError(Exception):
    """A step does not apply to a model; `finding` is the sentence that says why."""

    def __init__(self, says: str, *numbers: float, names: tuple[str, ...] = ()) -> None:
        super().__init__(says)
        self.finding = Finding(says, names, tuple(float(x) for x in numbers))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two images of different classes in each row, both of which the model answers rightly."""

    clean: Tensor  # [pair, channel, height, width], normalised
    corrupt: Tensor
    metric: LogitDiff  # the logit of the clean image's class minus that of the other's
    differing: float | None  # in how many factors the two differ, on average; None: the task has no factors
    tried: int  # images that were looked at
    right: int  # of which so many were answered rightly

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True, eq=False)
class Given:
    """A model and its task; each property is computed on first use."""

    model: ViT
    task: Task
    objective: Objective
    transform: Transform
    limit: int = 256  # test images
    n_pairs: int = 64
    seed: int = 0
    checkpoints: Mapping[int, Callable[[], ViT]] | None = None  # by step; None: there are none

    @property
    def measure_name(self) -> str:
        """Raises DoesNotApplyError for an objective that a checkpoint alone cannot be measured by."""
        if self.objective.name not in OF_OBJECTIVES:
            raise DoesNotApplyError("no_measure", names=(self.objective.name,))
        return OF_OBJECTIVES[self.objective.name]

    @property
    def measure(self) -> Measure:
        return MEASURES[self.measure_name]

    @cached_property
    def rows(self) -> Tensor:
        """Which test images, in the order of the split."""
        return self._drawn(self.task.splits["test"])[: self.limit].sort().values

    @cached_property
    def images(self) -> Tensor:
        return self._normalised(self.task.splits["test"], self.rows)

    @cached_property
    def wanted(self) -> Tensor:
        """The right answers of the images [image, ...]."""
        return self.objective.targets(self.task.splits["test"])[self.rows].to(self.images.device)

    @property
    def metric(self) -> Metric:
        """The measure of each image: all images at once, in order."""
        return self.measure.metric(self.objective, self.wanted)

    @property
    def coverage(self) -> Tensor | None:
        """How much of each patch the object covers [image, row, column], where the task has masks."""
        masks = self.task.splits["test"].masks
        return None if masks is None else coverage(masks[self.rows], self.model.config.patch_size)

    @cached_property
    def test_pairs(self) -> Pairs:
        """Pairs of test images. Raises DoesNotApplyError where the task gives none."""
        return self._pairs("test")

    @cached_property
    def training_pairs(self) -> Pairs:
        """Pairs of training images, to choose by, so that the test pairs can judge the choice."""
        return self._pairs("train")

    def answers(self, images: Tensor) -> Tensor:
        """Logits [image, class]."""
        with torch.no_grad():
            return torch.cat([run(self.model, some) for some in images.split(inputs_per_pass(self.model, None))])

    def _drawn(self, split: Split) -> Tensor:
        return torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(self.seed))

    def _normalised(self, split: Split, rows: Tensor) -> Tensor:
        return self.transform.normalise(split.images[rows]).to(self.model.embed.prefix)

    def _pairs(self, name: str) -> Pairs:
        if self.objective.name != "classification":
            raise DoesNotApplyError("no_pairs_of_classes", names=(self.objective.name,))
        split = self.task.splits[name]
        rows = self._drawn(split)[: TRIED * max(self.n_pairs, FEWEST_PAIRS)]
        images, labels = self._normalised(split, rows), split.labels[rows]
        right = (self.answers(images).argmax(-1).cpu() == labels).nonzero()[:, 0]
        own, classes = right[: self.n_pairs], labels[right]
        other_class = labels[own][:, None] != classes
        if int(other_class.any(1).sum()) < FEWEST_PAIRS:
            alike = len(right) >= FEWEST_PAIRS and len(classes.unique()) == 1
            raise DoesNotApplyError("no_pairs_of_two" if alike else "no_pairs_right", len(right), len(rows))
        own, other_class = own[other_class.any(1)], other_class[other_class.any(1)]
        factors = [split.factors[factor.name][rows] for factor in self.task.factors if factor.name in split.factors]
        differing = torch.zeros(other_class.shape)
        for values in factors:
            differing += values[own][:, None] != values[right]
        ties = torch.rand(other_class.shape, generator=torch.Generator().manual_seed(self.seed)) / 2
        chosen = (differing + ties).masked_fill(~other_class, torch.inf).argmin(1)
        other, many = right[chosen], differing.gather(1, chosen[:, None])
        return Pairs(
            images[own],
            images[other],
            LogitDiff(labels[own].tolist(), labels[other].tolist()),
            rounded(many.mean()) if factors else None,
            len(rows),
            len(right),
        )
