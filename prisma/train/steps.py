"""Steps of training: the loss on a step's batch, its gradient, and the update. Two ways that compute the same.

`Eager` does a step at a time, for one run. `Stacked` does many steps in a call, for one run or for several of one
recipe with other seeds.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

from prisma.data import task
from prisma.train.evaluate import evaluate
from prisma.train.machine import computes_in_bfloat16
from prisma.train.mean_weights import follow, share_of
from prisma.train.optimizer import learning_rate
from prisma.train.order import WHOLE, batch
from prisma.train.run import Run
from prisma.train.stacked import Stacked
from prisma.train.trained import ALL


class Steps(Protocol):
    """How runs take their steps; in lists there is a number for each run."""

    at_once: int  # at most so many steps in a call of `advance`

    def measure(self, step: int) -> list[tuple[float, float]]:
        """(loss, norm of its gradient before clipping) of the present weights on the batches of `step`."""

    def advance(self, first: int, last: int) -> list[list[float]]:
        """Take the steps from `first` to before `last`, and return the losses before each update [step][run]."""

    def evaluate(self, split: str, mean: bool = False) -> list[tuple[float, ...]]:
        """The measures of the objective on a split, of the present weights or of their running mean."""


def steps_of(runs: Sequence[Run]) -> Steps:
    """The fastest way for these runs on their device. A run whose steps draw what they ask is alone."""
    alone_on_cpu = len(runs) == 1 and runs[0].images.labels.device.type == "cpu"
    some_are_frozen = runs[0].recipe.training.trained != ALL
    return Eager(runs[0]) if alone_on_cpu or some_are_frozen or runs[0].recipe.objective.has_draws else Stacked(runs)


class Eager:
    """One run, a step at a time."""

    at_once = 1

    def __init__(self, run: Run) -> None:
        self.run, self.config, self.transform = run, run.recipe.training, task(run.recipe.task).transform
        self.objective, self.device = run.recipe.objective, run.images.labels.device
        self.part = WHOLE  # of each batch
        self._known: tuple[int, float] | None = None  # the step whose gradient the parameters hold, and its loss

    def measure(self, step: int) -> list[tuple[float, float]]:
        loss = self._gradient(step)
        gradients = [p.grad for p in self.run.learner.parameters() if p.grad is not None]
        return [(loss, get_total_norm(gradients).item())]

    def advance(self, first: int, last: int) -> list[list[float]]:
        found = []
        for step in range(first, last):
            found.append([self._gradient(step)])
            update(self.run, learning_rate(self.config, step))
            follow(self.run.mean, self.run.model, share_of(self.config, step))
            self._known = None
        return found

    def evaluate(self, split: str, mean: bool = False) -> list[tuple[float, ...]]:
        return [evaluate(self.run.learner_of(mean), *self.run.inputs[split], objective=self.objective)]

    def _gradient(self, step: int) -> float:
        """The loss on the batch of a step, whose gradient the parameters hold afterwards."""
        if self._known is None or self._known[0] != step:
            images, targets = batch(self.run.images, self.transform, self.config, step, self.part)
            draws = self.objective.draws(self.config.batch_size, step)
            self.run.optimizer.zero_grad()
            parts, whole = self.config.accumulate, 0.0
            some_images = images.chunk(parts)  # of a process's part of a batch, which may not divide evenly
            drawn = [None] * len(some_images) if draws is None else draws[self.part].to(self.device).chunk(parts)
            for some in zip(some_images, targets.chunk(parts), drawn, strict=True):
                loss = self._loss(*some) * (len(some[0]) / len(images))
                loss.backward()
                whole += loss.item()
            self._known = step, whole
        return self._known[1]

    def _loss(self, images: Tensor, targets: Tensor, draws: Tensor | None) -> Tensor:
        inputs, wanted = self.objective.question(images, targets, draws)
        in_bfloat16 = computes_in_bfloat16(self.config.precision, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bfloat16):
            answer = self.run.learner(*inputs)
            return self.objective.loss(answer.float() if in_bfloat16 else answer, wanted)


def update(run: Run, lr: float) -> None:
    """One update of AdamW along the gradient that the parameters hold, which is clipped."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    clip_grad_norm_(run.learner.parameters(), run.recipe.training.clip)
    run.optimizer.step()
