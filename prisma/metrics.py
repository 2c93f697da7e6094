"""Metrics: logits [batch, class] -> one number per image [batch].

A class is one for all images, or one for each image of the call. Any function from logits to one number per image can
be used as a metric. The metrics here compute in float32 at least, also from logits in half precision.

A metric marked with `takes_runs` also takes the logits of several runs of the images, [run, batch, class], at once, and
gives [run, batch], which is what it gives for each run alone. All metrics here do; any other is called for each run.

Where several classes have the same logit, no answer is better than another: `Rank` puts each at the mean of the ranks
that they share, and `top_share` divides the first place among them. So constant logits give what guessing gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from prisma.errors import NotFiniteError, PrismaError
from prisma.numbers import exact, first_not_finite

Metric = Callable[[Tensor], Tensor]
"""Logits [batch, class] -> one finite number per image [batch]."""

Target = int | Sequence[int] | Tensor
"""A class, or one for each image."""


Call = TypeVar("Call", bound=Callable[..., Any])


def takes_runs(metric: Call) -> Call:
    """Mark a metric, or the `__call__` of a class of them, that may be called with the logits of several runs."""
    metric.takes_runs = metric  # type: ignore[attr-defined]  # itself: functools.wraps copies a mark to what wraps it
    return metric


def is_marked(metric: Metric) -> bool:
    """Whether `takes_runs` marks a metric, and not only something that it wraps."""
    calls = (metric, type(metric).__call__) if callable(metric) else ()
    return any(getattr(call, "takes_runs", None) is call for call in calls)


class _OfClasses:
    """A metric whose fields are classes, kept as numbers and tuples, so that metrics can be compared and printed."""

    def __post_init__(self) -> None:
        for name, target in vars(self).items():
            object.__setattr__(self, name, _classes(target))


@dataclass(frozen=True)
class LogitDiff(_OfClasses):
    """The logit of class `correct` minus the logit of class `wrong`: positive where the model prefers `correct`."""

    correct: Target
    wrong: Target

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = [torch.as_tensor(target) for target in (self.correct, self.wrong)]
        if len({x.shape for x in pair if x.ndim}) > 1:
            raise PrismaError(f"expected as many wrong as correct classes; found {len(pair[1])} and {len(pair[0])}")
        if bool((pair[0] == pair[1]).all()):  # of some images alone, the difference is 0, and that is its value
            raise PrismaError(f"expected two classes that differ; found {self.correct} as correct and as wrong")

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        logits = exact(logits)
        return _of(self.correct, logits) - _of(self.wrong, logits)


@dataclass(frozen=True)
class Logit(_OfClasses):
    """The logit of one class. For a CLIP whose classes are prompts (`loaded.zero_shot`), the scaled similarity."""

    target: Target

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        return _of(self.target, exact(logits))


@dataclass(frozen=True)
class Probability(_OfClasses):
    """The softmax probability of one class."""

    target: Target

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        return _of(self.target, exact(logits).softmax(-1))


@dataclass(frozen=True)
class Rank(_OfClasses):
    """How many classes have a larger logit than the target, and half of the others that have the same: 0 is best.

    That is the mean rank when ties are broken at random: (C - 1) / 2 for constant logits. It has no gradient.
    """

    target: Target

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        above, tied = above_and_tied(logits, self.target)
        return above + (tied - 1) / 2


@dataclass(frozen=True, eq=False)
class KL:
    """The divergence KL(reference || this run) in nats: how far the class probabilities are from a reference run's.

    `reference` holds the logits of that run [batch or 1, class]. 0 means equal probabilities.
    """

    reference: Tensor

    def __post_init__(self) -> None:
        _keep_tensor(self, "reference", "the logits [batch, class] of a reference run")

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        if self.reference.shape not in (logits.shape[-2:], (1, logits.shape[-1])):
            one = self.reference.shape == logits.shape[-1:]
            advice = ": for one reference for all images, use reference[None]" if one else ""
            raise PrismaError(
                f"expected reference logits {list(logits.shape[-2:])}; found {list(self.reference.shape)}{advice}"
            )
        expected, found = (exact(x).log_softmax(-1) for x in (self.reference.to(logits.device), logits))
        surprise = torch.where(expected.exp() > 0, expected - found, 0)  # 0 log 0 is 0, and so is its gradient
        return (expected.exp() * surprise).sum(-1)


@dataclass(frozen=True, eq=False)
class Similarity:
    """The cosine similarity of the output of a model without classes (a CLIP's image embedding) and a direction.

    `direction` is [features], or [batch, features] for one direction per image.
    """

    direction: Tensor

    def __post_init__(self) -> None:
        _keep_tensor(self, "direction", "a direction [features]")

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        if self.direction.shape not in (logits.shape[-2:], logits.shape[-1:]):
            raise PrismaError(f"expected a direction [{logits.shape[-1]}]; found {list(self.direction.shape)}")
        logits = exact(logits)
        return torch.cosine_similarity(logits, self.direction.to(logits).expand_as(logits), dim=-1)


def logit_diff(logits: Tensor, target: Tensor) -> LogitDiff:
    """The logit of each image's target class minus the largest logit of the other classes in `logits`.

    Args:
        logits: [batch, class], from which the next best class of each image is taken.
        target: [batch], whole numbers.
    """
    others = logits.scatter(1, target[:, None], -torch.inf)
    return LogitDiff(target, others.argmax(-1))


NAMED: Mapping[str, Callable[[Tensor, Tensor], Metric]] = {
    "logit": lambda logits, target: Logit(target),
    "probability": lambda logits, target: Probability(target),
    "logit_diff": logit_diff,
}
"""Name -> the metric, made of the logits [batch, class] of the unchanged run and a target class [batch] for each image.

These are the names of the command line and the app.
"""


def named_metric(name: str, logits: Tensor, target: Tensor | int | None = None) -> Metric:
    """A metric by its name in `NAMED`.

    Args:
        logits: [batch, class] of the unchanged run.
        target: a class, or one for each image; by default the class that the run predicts for each image.

    Raises:
        PrismaError: no metric has this name, there are too few classes for it, or there is no such class.
    """
    if name not in NAMED:
        raise PrismaError(f"expected a metric among {', '.join(NAMED)}; found {name!r}")
    classes = logits.shape[1]
    if classes < (fewest := 2 if name == "logit_diff" else 1):
        raise PrismaError(f"the metric {name} needs a model with at least {fewest} classes; found {classes}")
    chosen = logits.argmax(-1) if target is None else torch.as_tensor(target, device=logits.device).expand(len(logits))
    if not ((chosen >= 0) & (chosen < classes)).all():
        raise PrismaError(f"expected a class from 0 to {classes - 1}; found {target}")
    return NAMED[name](logits, chosen)


def measure(metric: Metric, logits: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
    """The metric of these logits, checked, in float32 at least, so that means are not rounded to half precision.

    Args:
        rows: which images are wanted; the others are only shown to the metric.

    Raises:
        PrismaError: the metric is not one number per image.
        NotFiniteError: logits or the metric are not finite; the message names the image.
    """
    if (found := first_not_finite(logits)) is not None:
        raise NotFiniteError(f"expected finite logits; found {found[1]} in image {found[0]}")
    values = values_of(metric, logits)
    wanted = values[rows]
    if (found := first_not_finite(wanted)) is not None:
        image = torch.arange(len(logits))[rows if isinstance(rows, slice) else rows.cpu()][found[0]]
        raise NotFiniteError(f"expected a metric that is finite; found {found[1]} in image {image}")
    return exact(wanted)


def values_of(metric: Metric, logits: Tensor) -> Tensor:
    """The metric [..., image] of logits [..., image, class]. Raises PrismaError: it is not one number per image."""
    if not callable(metric):
        raise PrismaError(
            f"expected a metric, such as LogitDiff(3, 5) or a function of logits; found a {type(metric).__name__}"
        )
    values = metric(logits)
    if not isinstance(values, Tensor) or values.shape != logits.shape[:-1]:
        shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise PrismaError(
            f"expected a metric that returns one number per image, {list(logits.shape[:-1])}; found {shape}"
        )
    return values


def above_and_tied(logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """How many classes have a larger logit than the target, and how many the same, itself included: two of [batch]."""
    own = _of(target, logits)[..., None]
    return exact((logits > own).sum(-1)), exact((logits == own).sum(-1))


def top_share(above: Tensor, tied: Tensor) -> Tensor:
    """The probability that the target comes first when ties are broken at random: 1, or 1 / n of n classes that tie."""
    return (above == 0) / tied


def _keep_tensor(metric: Any, field: str, what: str) -> None:
    """Keep a field of a metric as a tensor of numbers, which may be given as an array or lists.

    Raises:
        PrismaError: it is something else.
    """
    value = getattr(metric, field)
    try:
        kept = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        kept = None
    if kept is None or not kept.is_floating_point():
        found = f"numbers of {kept.dtype}" if kept is not None else f"{value!r:.80}"
        raise PrismaError(f"expected {what}, as numbers with a fraction; found {found}")
    object.__setattr__(metric, field, kept)


def _classes(target: Target) -> int | tuple[int, ...]:
    """A class, or one for each image, from Python, numpy and torch integers.

    Raises:
        PrismaError: something else, such as True or a fraction.
    """
    try:
        chosen = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        chosen = None
    if chosen is None or chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.ndim > 1:
        raise PrismaError(f"expected one class, or one for each image, as whole numbers; found {target!r:.80}")
    return tuple(chosen.tolist()) if chosen.ndim else int(chosen)


def _of(target: Target, scores: Tensor) -> Tensor:
    """[..., batch]: the score of each image's class, from scores [..., batch, class]."""
    chosen = torch.as_tensor(target, device=scores.device)
    if chosen.is_floating_point() or chosen.shape not in ((), scores.shape[-2:-1]):
        found = f"{list(chosen.shape)} of {chosen.dtype}"
        raise PrismaError(f"expected one class, or one for each of {scores.shape[-2]} images; found {found}")
    if not ((chosen >= 0) & (chosen < scores.shape[-1])).all():
        wrong = chosen[(chosen < 0) | (chosen >= scores.shape[-1])].flatten()[0].item()
        raise PrismaError(f"expected a class from 0 to {scores.shape[-1] - 1}; found {wrong}")
    return scores.gather(-1, chosen.long().expand(scores.shape[:-1])[..., None])[..., 0]
