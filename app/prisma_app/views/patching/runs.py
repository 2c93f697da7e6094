"""Exact patches, some at a time: a page shows each when it is there, and a visitor who goes away ends the rest.

A place of the heavy lane is taken for each part, not for the whole stream: many visitors share it in turns, and one who
reads slowly holds none. What was computed is kept, so that who asks the same question again needs no place at all.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from prisma.analysis.patching.activation_patching import patch_sets
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma_app.cache import Cache
from prisma_app.lanes import HEAVY, BusyError
from prisma_app.library import Scene
from prisma_app.views.patching.estimates import token_estimate
from prisma_app.views.patching.question import HEADS, Question, question_of

T = TypeVar("T")
TOP = 20  # cells of the token map that are computed exactly without being asked for
AT_ONCE = 6.0  # whole forward passes of one part
MOST_SECONDS = 900.0  # of one stream

Cell = tuple[int, int]
"""A layer, and a head or token."""


@dataclass(frozen=True)
class Plan:
    """Which cells a stream computes, and the metric of the changed run, and how far the other run's is from it."""

    cells: Sequence[Cell]
    base: float
    gap: float | None


PLANS: Cache[Plan] = Cache(16 * 2**20, lambda plan: 200 + 120 * len(plan.cells))
VALUES: Cache[list[float]] = Cache(32 * 2**20, lambda values: 500 + 150 * len(values))
"""The metric of the cells of one part, by question and part. A place is taken before a key, never the other way."""


def stream(scene: Scene, what: str = "heads") -> Iterator[dict[str, Any]]:
    """First `{"cells": how many}`, then for each `{"layer", "head" or "token", "value", "recovered"}`.

    Args:
        what: `"heads"`: every head; `"top"`: the tokens of which the estimate is largest; `"tokens"`: every token.

    Raises:
        PrismaError: `what` is none of these; later, as `question_of`, or when the time is over.
    """
    if what not in CHOICES:
        raise PrismaError(f"expected what among {', '.join(CHOICES)}; found {quoted(what, 40)}")
    return _lines(scene, what)


def _lines(scene: Scene, what: str) -> Iterator[dict[str, Any]]:
    axis, expect_time = "head" if what == "heads" else "token", time_until(MOST_SECONDS)
    asked, known = _asked(scene), list[Question]()

    def question() -> Question:
        if not known:
            known.append(question_of(scene))
        return known[0]

    plan = _kept(PLANS, (*asked, what), lambda: _plan(question(), what))
    yield {"cells": len(plan.cells)}
    for part in parts(plan.cells, scene.config):
        key = (*asked, axis, tuple(part))
        found = _kept(VALUES, key, lambda part=part: exact(question(), axis, part).tolist())  # type: ignore[misc]
        for (layer, unit), value in zip(part, found, strict=True):
            share = None if plan.gap is None else (value - plan.base) / plan.gap
            yield {"layer": layer, axis: unit, "value": value, "recovered": share}
        expect_time()


def _plan(question: Question, what: str) -> Plan:
    runs = {run: question.measured(logits) for run, logits in question.logits().items()}
    return Plan(CHOICES[what](question), runs[question.into], question.gap(runs))


def _asked(scene: Scene) -> tuple[Hashable, ...]:
    """All that decides the numbers."""
    state, subject = scene.state, scene.subject
    pair = (subject.name, subject.rev, scene.step, scene.picture.img, scene.corrupt.img)
    return (*pair, state.metric, state.into, state.site, state.target, state.against, state.prompts)


def _kept(cache: Cache[T], key: Hashable, make: Callable[[], T]) -> T:
    found = cache.find(key)
    if found is None:
        with HEAVY.place():
            found = cache.get(key, make)
    return found


def exact(question: Question, axis: str, cells: Sequence[Cell]) -> Tensor:
    """The metric [cell] after each cell alone was patched, as `prisma.sweep` gives it."""
    site = HEADS if axis == "head" else question.site
    sets = {f"{layer}.{unit}": {f"blocks.{layer}.{site}": {axis: unit}} for layer, unit in cells}
    found = patch_sets(question.model, question.clean, question.corrupt, sets, question.metric, into=question.into)
    return found.values[0]


def exact_heads(question: Question, expect_time: Callable[[], None]) -> Tensor:
    """The metric [layer, head] after each head was patched; `expect_time` is called between parts."""
    found: list[Tensor] = []
    for part in parts(all_heads(question), question.config):
        found.append(exact(question, "head", part))
        expect_time()
    return torch.cat(found).unflatten(0, (question.config.n_layers, question.config.n_heads))


def parts(cells: Iterable[Cell], config: ViTConfig) -> Iterator[list[Cell]]:
    """The cells in runs of about `AT_ONCE` forward passes: a patch in layer l leaves n_layers - l blocks to compute."""
    part: list[Cell] = []
    cost = 0.0
    for cell in cells:
        part.append(cell)
        cost += 1 - cell[0] / config.n_layers
        if cost >= AT_ONCE:
            yield part
            part, cost = [], 0.0
    if part:
        yield part


def all_heads(question: Question) -> list[Cell]:
    """Every head, layer by layer."""
    return [(layer, head) for layer in range(question.config.n_layers) for head in range(question.config.n_heads)]


def all_tokens(question: Question) -> list[Cell]:
    """Every token, layer by layer."""
    return [(layer, token) for layer in range(question.config.n_layers) for token in range(question.config.n_tokens)]


def top_tokens(question: Question) -> list[Cell]:
    """The cells of the token map of which the estimate is largest, largest first."""
    size = token_estimate(question).abs()
    order: list[int] = size.flatten().argsort(descending=True)[:TOP].tolist()
    return [divmod(i, size.shape[1]) for i in order]


CHOICES: Mapping[str, Callable[[Question], list[Cell]]] = {
    "heads": all_heads,
    "top": top_tokens,
    "tokens": all_tokens,
}


def time_until(seconds: float) -> Callable[[], None]:
    """A function that raises BusyError when so many seconds are over."""
    end = time.monotonic() + seconds

    def expect_time() -> None:
        if time.monotonic() > end:
            raise BusyError(f"this takes longer than the {seconds:.0f} seconds that one visitor gets: use prisma.sweep")

    return expect_time
