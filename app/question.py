"""What the Patching tab asks: which run is patched, at which site, and what is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.subject import Picture, Subject
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.metrics import LogitDiff, Probability

METRICS = ("logit difference", "probability")
DIRECTIONS = {"denoising: clean into corrupt": "corrupt", "noising: corrupt into clean": "clean"}
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True)
class Question:
    """One question to a pair of images."""

    metric: str  # of METRICS
    target: int  # class
    against: int  # class; of the logit difference only
    site: str  # of the token map
    into: str  # the run that is patched: "clean" or "corrupt"


def sites(subject: Subject) -> list[str]:
    """The sites of the token map that this model has."""
    known = site_names(subject.final.config)
    return [site for site in SITES if f"blocks.0.{site}" in known]


def default_question(subject: Subject, picture: Picture, corrupt: Picture, before: Question | None = None) -> Question:
    """The classes that the final weights answer for the two images; everything else stays as it was.

    The classes do not follow the checkpoint, so that every training step is asked the same question.
    """
    clean, other = subject.final.model(torch.stack([picture.x, corrupt.x]))
    target = int(clean.argmax())
    order: list[int] = other.argsort(descending=True).tolist()
    against = next((c for c in order if c != target), target)
    if before is None:
        return Question(METRICS[0], target, against, SITES[0], "corrupt")
    site = before.site if before.site in sites(subject) else SITES[0]
    return Question(before.metric, target, against, site, before.into)


def asked(subject: Subject, metric: Any, target: Any, against: Any, site: Any, into: Any) -> Question:
    """A question from the controls of the page, which anyone may send.

    Raises:
        PrismaError: a value that the page does not offer.
    """
    classes = tuple(range(len(subject.labels)))
    given = (
        ("metric", metric, METRICS),
        ("class", target, classes),
        ("class", against, classes),
        ("site", site, sites(subject)),
        ("direction", into, tuple(DIRECTIONS.values())),
    )
    for name, value, offered in given:
        if isinstance(value, bool) or value not in offered:
            some = ", ".join(map(str, offered[:10]))
            raise PrismaError(f"expected a {name} among {some}; found {str(value)[:40]!r}")
    if metric == METRICS[0] and target == against:
        raise PrismaError("expected two classes for a logit difference, found the same twice")
    return Question(metric, target, against, site, into)


def metric_of(question: Question, labels: list[str]) -> tuple[Callable[[Tensor], Tensor], str]:
    """The metric, and its name in words."""
    if question.metric == "probability":
        return Probability(question.target), f"probability ({labels[question.target]})"
    name = f"logit ({labels[question.target]}) - logit ({labels[question.against]})"
    return LogitDiff(question.target, question.against), name
