"""Numbers to ask for when patching: logits [batch, class] -> one number per image [batch]."""

from dataclasses import dataclass

from torch import Tensor

from prisma.errors import PrismaError


@dataclass(frozen=True)
class LogitDiff:
    """logit of class `correct` minus logit of class `wrong`."""

    correct: int
    wrong: int

    def __call__(self, logits: Tensor) -> Tensor:
        return _of(self.correct, logits) - _of(self.wrong, logits)


@dataclass(frozen=True)
class Probability:
    """Softmax probability of one class."""

    target: int

    def __call__(self, logits: Tensor) -> Tensor:
        return _of(self.target, logits.softmax(-1))


def _of(target: int, scores: Tensor) -> Tensor:
    if not 0 <= target < scores.shape[1]:
        raise PrismaError(f"expected a class from 0 to {scores.shape[1] - 1}, found {target}")
    return scores[:, target]
