"""Numbers to ask for when patching: logits [batch, class] -> one number per image [batch]."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogitDiff:
    """logit of class `correct` minus logit of class `wrong`."""

    correct: int
    wrong: int

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[:, self.correct] - logits[:, self.wrong]


@dataclass(frozen=True)
class Probability:
    """Softmax probability of one class."""

    target: int

    def __call__(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)[:, self.target]
