"""Objectives that ask for the labels of images: one class, several classes at once, or numbers."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.config import ViTConfig
from prisma.data.task import Factor, Split, Task
from prisma.errors import listed
from prisma.metrics import above_and_tied, top_share
from prisma.train.objectives.base import Objective, Squares, expect

if TYPE_CHECKING:
    from prisma.train.config import TrainConfig

_GOALS = 4  # a stream of random numbers from one seed, beside those of `prisma.train.order` and of pixels


class Classification(Objective):
    """One class for each image: cross-entropy.

    Where n classes share the largest logit, an image counts 1 / n as right, so that constant logits have the accuracy
    of chance.
    """

    name = "classification"
    loss_axis = "cross-entropy, nats"
    explained = (
        "Accuracy is the share of images whose largest logit is that of their label, loss the mean cross-entropy in "
        "nats."
    )

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        expect(not data.targets, cls.name, "a task of one class for each image", _about(data))
        return cls(data.labels)

    def loss(self, answer: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(answer, wanted)

    def sums(self, answer: Tensor, wanted: Tensor) -> Tensor:
        loss = F.cross_entropy(answer.double(), wanted, reduction="sum")
        return torch.stack([loss, top_share(*above_and_tied(answer, wanted)).sum(dtype=torch.float64)])

    def measured(self, sums: Sequence[float], n: int) -> tuple[float, ...]:
        return tuple(value / n for value in sums)


class Several(Objective):
    """Several classes for each image, one of each target: the mean of the cross-entropies.

    The model's logits are those of the targets one after the other, in the order of the task.
    """

    name = "several"
    loss_axis = "cross-entropy, nats"
    explained = (
        "The accuracy of a target is the share of images for which the largest of its logits is that of their label, "
        "and accuracy without a target the mean of these; loss is the mean of the targets' cross-entropies in nats."
    )

    def __init__(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        """classes: target -> the names of its classes."""
        super().__init__(tuple(f"{target} {name}" for target, names in classes.items() for name in names))
        self.asked, self.counts = list(classes), [len(names) for names in classes.values()]

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        classes = {factor.name: factor.names for factor in _asked(data)}
        fits = bool(classes) and all(classes.values())
        expect(fits, cls.name, "a task with several targets, each of classes", _about(data))
        return cls(classes)

    def targets(self, split: Split) -> Tensor:
        return torch.stack([split.factors[name] for name in self.asked], 1)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("loss", "accuracy", *(f"{name}_accuracy" for name in self.asked))

    def loss(self, answer: Tensor, wanted: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(own, right) for own, right in self._parts(answer, wanted)]).mean()

    def sums(self, answer: Tensor, wanted: Tensor) -> Tensor:
        rows = [Classification().sums(own, right) for own, right in self._parts(answer, wanted)]
        losses, shares = torch.stack(rows, 1)
        return torch.cat([losses.mean()[None], shares.mean()[None], shares])

    def measured(self, sums: Sequence[float], n: int) -> tuple[float, ...]:
        return tuple(value / n for value in sums)

    def _parts(self, answer: Tensor, wanted: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(logits [batch, class], labels [batch]) of each target."""
        return list(zip(answer.split(self.counts, -1), wanted.unbind(-1), strict=True))


class Regression(Squares):
    """Numbers for each image, standardised: in units of their standard deviation over the training images.

    The model answers standardised numbers too.
    """

    name = "regression"
    explained = (
        "Loss is the mean squared error of the numbers, each less its mean and over its standard deviation on the "
        "training images; r2 is R², the share of their variance that the model explains: 1 is best, and 0 is as good "
        "as always the mean."
    )

    def __init__(self, data: Task) -> None:
        super().__init__(data.targets)
        self._data = data

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        expect(bool(data.targets), cls.name, "a task with targets, whose values count as numbers", _about(data))
        return cls(data)

    def targets(self, split: Split) -> Tensor:
        mean, deviation = self.scale
        return ((self._numbers(split) - mean) / deviation).float()

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor]:
        """(mean, standard deviation) of each number [target] over the training images; a constant has a deviation 1."""
        numbers = self._numbers(self._data.splits["train"])
        deviation = numbers.std(0, correction=0)
        return numbers.mean(0), torch.where(deviation > 0, deviation, 1.0)

    def _numbers(self, split: Split) -> Tensor:
        return torch.stack([split.factors[name].double() for name in self._data.targets], 1)


class Varying(Regression):
    """One number for each image, a weighted sum of the task's numbers; its weights change every `goal_every` steps.

    The numbers are standardised, and the weights of a goal are a random direction, so the number wanted has a
    variance of about 1 for every goal. The model is not told the goal: it has to learn it anew, and can keep what all
    goals need.

    Sources: Kashtan and Alon 2005 (modularly varying goals), with goals that are drawn, as those of toumei are.
    """

    name = "varying"
    has_draws = True
    explained = (
        "Loss is the mean squared error of a weighted sum of the task's standardised numbers, whose weights, the goal, "
        "change during training; r2 is R², the share of its variance that the model explains. Of the training loss the "
        "goal is that of the step; all other numbers are of the goal that the run ends with, so they are low where "
        "another one was trained."
    )

    def __init__(self, data: Task, training: "TrainConfig") -> None:
        super().__init__(data)
        self.names, self.training = ("goal",), training

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        expect(
            len(data.targets) > 1, cls.name, "a task with two targets or more, of which goals are sums,", _about(data)
        )
        return cls(data, training)

    def goal(self, step: int) -> Tensor:
        """The weights of the task's numbers [number] at a step: a random direction, of length 1."""
        every = self.training.goal_every
        seed = self.training.order_seed, _GOALS, step // every if every else 0
        drawn = np.random.RandomState(seed).standard_normal(len(self._data.targets))
        return torch.from_numpy(drawn / np.linalg.norm(drawn)).float()

    def draws(self, n: int, step: int) -> Tensor:
        return self.goal(step).expand(n, -1)

    def evaluation_draws(self, n: int) -> Tensor:
        return self.draws(n, max(self.training.steps - 1, 0))

    def question(self, images: Tensor, targets: Tensor, draws: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor]:
        assert draws is not None, "every step has a goal"
        return (images,), (targets * draws).sum(-1, keepdim=True)


def _asked(data: Task) -> list[Factor]:
    """The factors that a task asks for, in its order."""
    known = {factor.name: factor for factor in data.factors}
    return [known[name] for name in data.targets]


def _about(data: Task) -> str:
    """What a task asks, in a few words."""
    return f"{data.name}, {f'of the targets {listed(data.targets)}' if data.targets else 'of one class for each image'}"
