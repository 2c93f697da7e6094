"""What is counted of each image: whether the answer is right, or the loss. One number per image, by one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.statistics import mean_interval, wilson_interval
from prisma.metrics import Metric, above_and_tied, top_share
from prisma.train.objectives import OBJECTIVES, Objective


@dataclass(frozen=True)
class Measure:
    """A number per image, and how a sentence says that it gets worse or better."""

    noun: str  # "accuracy"
    worse: str  # "lowers the accuracy"
    better: str  # "raises the accuracy"
    harm: int  # -1 where a larger number is better, so that `harm * change` is how much worse it gets
    metric: Callable[[Objective, Tensor], Metric]  # (what was trained for, right answers [image, ...]) -> the metric


def _right(objective: Objective, wanted: Tensor) -> Metric:
    return lambda logits: top_share(*above_and_tied(logits, wanted))


def _loss(objective: Objective, wanted: Tensor) -> Metric:
    return lambda logits: torch.stack(
        [objective.loss(logits[i : i + 1], wanted[i : i + 1]) for i in range(len(logits))]
    )


MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure("accuracy", "lowers the accuracy", "raises the accuracy", -1, _right),
    "loss": Measure("loss", "raises the loss", "lowers the loss", 1, _loss),
}
OF_OBJECTIVES: Mapping[str, str] = {"classification": "accuracy", "several": "loss", "regression": "loss"}
"""Objective -> its measure. The others are trained with a part that a checkpoint lacks, or towards a goal that "
"moves."""
assert OF_OBJECTIVES.keys() <= OBJECTIVES.keys()


def mean_with_ends(values: Tensor, measure: str) -> tuple[Tensor, Tensor]:
    """The mean over images of values [image], and its interval of 95 % [2]: Wilson's of a share, else a bootstrap."""
    if measure == "accuracy":
        return values.mean(), wilson_interval(values.double().mean(), torch.tensor(float(len(values))))
    return values.mean(), mean_interval(values)
