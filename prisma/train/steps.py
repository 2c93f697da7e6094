"""Steps of training: the loss on a step's batch, its gradient, and the update. Two ways that compute the same.

`Eager` does a step at a time, for one run. `Stacked` does many steps in a call, for one run or for several of one
recipe with other seeds.
"""

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from prisma.data import task
from prisma.train.evaluate import evaluate
from prisma.train.optimizer import learning_rate
from prisma.train.order import batch
from prisma.train.run import Run
from prisma.train.stacked import Stacked


class Steps(Protocol):
    """How runs take their steps; in lists there is a number for each run."""

    at_once: int  # at most so many steps in a call of `advance`

    def losses(self, step: int) -> list[float]:
        """The losses of the present weights on the batches of `step`."""

    def advance(self, first: int, last: int) -> list[list[float]]:
        """Take the steps from `first` to before `last`, and return the losses before each update [step][run]."""

    def evaluate(self, split: str) -> list[tuple[float, float]]:
        """(loss, accuracy) of the present weights on a split."""


def steps_of(runs: Sequence[Run]) -> Steps:
    """The fastest way for these runs on their device."""
    alone_on_cpu = len(runs) == 1 and runs[0].images.labels.device.type == "cpu"
    return Eager(runs[0]) if alone_on_cpu else Stacked(runs)


class Eager:
    """One run, a step at a time."""

    at_once = 1

    def __init__(self, run: Run) -> None:
        self.run, self.transform = run, task(run.recipe.task).transform
        self._known: tuple[int, Tensor] | None = None  # a step, and its loss with its graph

    def losses(self, step: int) -> list[float]:
        return [self._loss(step).item()]

    def advance(self, first: int, last: int) -> list[list[float]]:
        found = []
        for step in range(first, last):
            loss = self._loss(step)
            found.append([loss.item()])
            update(self.run, loss, learning_rate(self.run.recipe.training, step))
            self._known = None
        return found

    def evaluate(self, split: str) -> list[tuple[float, float]]:
        return [evaluate(self.run.model, *self.run.inputs[split])]

    def _loss(self, step: int) -> Tensor:
        if self._known is None or self._known[0] != step:
            images, labels = batch(self.run.images, self.transform, self.run.recipe.training, step)
            self._known = (step, F.cross_entropy(self.run.model(images), labels))
        return self._known[1]


def update(run: Run, loss: Tensor, lr: float) -> None:
    """One update of AdamW along the gradient of a loss, which is clipped."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(run.model.parameters(), run.recipe.training.clip)
    run.optimizer.step()
