"""Exact patches, some at a time: a page shows each when it is there, and a visitor who goes away ends the rest.

A place of the heavy lane is taken for each part, not for the whole stream: many visitors share it in turns, and one who
reads slowly holds none.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.patching.activation_patching import patch_sets
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma_app.lanes import HEAVY, BusyError
from prisma_app.library import Scene
from prisma_app.views.patching.estimates import token_estimate
from prisma_app.views.patching.question import HEADS, Question, question_of

TOP = 20  # cells of the token map that are computed exactly without being asked for
AT_ONCE = 6.0  # whole forward passes of one part
MOST_SECONDS = 900.0  # of one stream

Cell = tuple[int, int]
"""A layer, and a head or token."""


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
    with HEAVY.place():
        question = question_of(scene)
        cells = CHOICES[what](question)
        runs = {run: question.measured(logits) for run, logits in question.logits().items()}
    yield {"cells": len(cells)}
    for part in parts(cells, question.config):
        with HEAVY.place():
            found = exact(question, axis, part)
        shares = question.recovered(found, runs)
        for i, (layer, unit) in enumerate(part):
            share = None if shares is None else shares[i].item()
            yield {"layer": layer, axis: unit, "value": found[i].item(), "recovered": share}
        expect_time()


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
