"""What an objective is: the question to the model, what counts as its answer, the loss, and how well it does.

A training step puts a batch as `question` says, and lowers the `loss` of the answer. An evaluation adds up the `sums`
of the answers to many images, of which `measured` makes the numbers of a line of `metrics.jsonl`.

The model that answers is the `learner`: the ViT itself, or parts of it under the same names of parameters, perhaps with
a decoder beside them. Checkpoints hold the ViT alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.data.task import Split, Task
from prisma.errors import PrismaError, quoted
from prisma.headlines import HEADLINES
from prisma.vit import ViT

if TYPE_CHECKING:
    from prisma.train.config import TrainConfig


class Objective:
    """One way to train; classification is the simplest."""

    name: ClassVar[str]
    loss_axis: ClassVar[str]  # the loss and its unit, on a curve
    explained: ClassVar[str]  # what its numbers are, as a sentence for a card
    has_draws: ClassVar[bool] = False  # whether a step asks something that is drawn for it
    has_decoder: ClassVar[bool] = False  # whether a module is trained beside the model, which checkpoints do not hold

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names  # of the model's logits, for `config.json`

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        """The objective of a recipe. Raises PrismaError if the model or the task is none for it."""
        raise NotImplementedError

    @property
    def headline(self) -> str:
        """The number beside the loss by which runs are compared: the larger, the better, and at most 1."""
        return HEADLINES[self.name]

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what `measured` gives: the loss, the headline, and perhaps more."""
        return ("loss", self.headline)

    def targets(self, split: Split) -> Tensor:
        """What is asked of the images of a split, as `question` takes it: their labels [n]."""
        return split.labels

    def decoder(self, seed: int) -> nn.Module | None:
        """The module that is trained beside the model, with its first weights; None if there is none."""
        return None

    def learner(self, model: ViT, decoder: nn.Module | None = None) -> nn.Module:
        """What answers `question`."""
        return model

    def draws(self, n: int, step: int) -> Tensor | None:
        """What is drawn for each of the `n` images of a step, a function of the step and the recipe's seeds."""
        return None

    def evaluation_draws(self, n: int) -> Tensor | None:
        """The same for the first `n` images of a split: at every checkpoint and for every seed alike."""
        return None

    def question(self, images: Tensor, targets: Tensor, draws: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor]:
        """(what the learner gets, the right answer) for normalised images."""
        return (images,), targets

    def loss(self, answer: Tensor, wanted: Tensor) -> Tensor:
        """The mean loss of the answers to a batch."""
        raise NotImplementedError

    def sums(self, answer: Tensor, wanted: Tensor) -> Tensor:
        """Numbers, float64, which can be added over batches, and from which `measured` follows."""
        raise NotImplementedError

    def measured(self, sums: Sequence[float], n: int) -> tuple[float, ...]:
        """The numbers of `measures`, from the sums over `n` images."""
        raise NotImplementedError


class Squares(Objective):
    """Answers in numbers, whose squared errors count. Answers and wanted are [..., number].

    R² is the share of the variance of the wanted numbers, each about its own mean, that the answers explain: 1 for
    right answers, 0 for answers that are always the mean, below 0 for worse ones.
    """

    loss_axis = "mean squared error"

    def loss(self, answer: Tensor, wanted: Tensor) -> Tensor:
        return F.mse_loss(answer, wanted.to(answer.dtype))

    def sums(self, answer: Tensor, wanted: Tensor) -> Tensor:
        rows, own = (x.double().flatten(0, -2) for x in (wanted, answer))
        counts = torch.full((1,), len(rows), dtype=torch.float64, device=rows.device)
        return torch.cat([(own - rows).square().sum()[None], counts, rows.sum(0), rows.square().sum(0)])

    def measured(self, sums: Sequence[float], n: int) -> tuple[float, ...]:
        errors, rows, k = sums[0], sums[1], len(sums) // 2 - 1
        plain, squares = sums[2 : 2 + k], sums[2 + k :]
        spread = sum(square - once**2 / rows for once, square in zip(plain, squares, strict=True))
        varies = spread > 1e-12 * sum(squares)  # else it is rounding
        return errors / (rows * k), 1 - errors / spread if varies else 0.0


def expect(fits: bool, objective: str, what: str, found: object) -> None:
    """Raise PrismaError unless a recipe fits its objective: `what` it needs, and what was found."""
    if not fits:
        raise PrismaError(f"expected {what} for the objective {objective}; found {quoted(found)}")
