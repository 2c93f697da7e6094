"""The stated list of analyses on a mouse, and what they found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from prisma import __version__
from prisma.errors import PrismaError
from prisma.fields import conform
from prisma.files import write_atomic
from prisma.filesystem import given as given_path
from prisma.mechanisms.catalog import STEPS, Step
from prisma.mechanisms.findings import Finding, Mechanism, StepFindings
from prisma.mechanisms.given import FEWEST_PAIRS, DoesNotApplyError, Given
from prisma.mechanisms.measures import OF_OBJECTIVES
from prisma.mechanisms.subject import Subject, subject
from prisma.reading import read_bytes

LIMIT, PAIRS = 256, 64
FEWEST, MOST = 16, 100_000
"""Images; of a few, a bootstrap gives too narrow an interval."""


def mechanism(
    ref: str | Path | Subject,
    hub: str | Path | None = None,
    *,
    limit: int = LIMIT,
    pairs: int = PAIRS,
    seed: int = 0,
    kept: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Mechanism:
    """What do the parts of a mouse do, and which of them matter? The steps of `catalog.STEPS`, in sentences.

    Every number that describes a part (what a head attends to, where the answer can be read) stands beside one of what
    happens when the part is taken away or replaced, with an interval of 95 %. A part whose effect may be 0 is said to
    be not needed. `card.step("heads")` has the values, and
    `prisma.mechanisms.page(card)` puts them into words.

    Args:
        ref: `mice/NAME`, `OWNER/NAME`, a run folder or a folder of what is published.
        hub: the folder hub of a published mouse; None is the Hugging Face Hub.
        limit: test images, drawn at random.
        pairs: pairs of images of two classes; of test images, and as many of training images to choose edges by.
        seed: of all that is drawn: the same seed gives the same card.
        kept: a file with the steps that were finished, from which a call that was stopped goes on. It stays, so that
            nothing is lost before the card is written: whoever wrote that removes it.
        say: called with a sentence about each step.

    Returns:
        a `Mechanism`: frozen, and equal to what its JSON reads back to.

    Raises:
        PrismaError: it is no mouse, its task is not here, a setting is out of range, or it gives no finite answers.
    """
    limit, pairs, seed = conform("limit", limit, int), conform("pairs", pairs, int), conform("seed", seed, int)
    if not (FEWEST <= limit <= MOST and FEWEST_PAIRS <= pairs <= MOST and 0 <= seed < 2**63):
        raise PrismaError(
            f"expected {FEWEST} to {MOST:,} images, {FEWEST_PAIRS} to {MOST:,} pairs, and a seed of at least 0; found "
            f"{limit=}, {pairs=}, {seed=}"
        )
    found = ref if isinstance(ref, Subject) else subject(ref, hub)
    given = Given(found.model, found.task, found.objective, found.transform, limit, pairs, seed, found.checkpoints)
    kept = kept if kept is None else given_path(kept)
    card = _resumed(_empty(found, given), kept)
    with _one_thread():
        for step in STEPS[len(card.steps) :]:
            say(f"{step.name}: {step.title}")
            card = replace(card, steps=(*card.steps, _ran(step, given, say)))
            if kept is not None:
                write_atomic(kept, card.to_json())
    return card


@contextmanager
def _one_thread() -> Iterator[None]:
    """Mice are so small that one thread is fastest; and sums are then in one order, on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _empty(found: Subject, given: Given) -> Mechanism:
    """A card without steps."""
    config = found.model.config
    return Mechanism(
        model=found.name,
        weights=found.weights,
        task=found.task.name,
        measure=OF_OBJECTIVES.get(found.objective.name, "loss"),
        images=len(given.rows),
        pairs=given.n_pairs,
        seed=given.seed,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        has_mlps=config.d_mlp > 0,
        steps=(),
        version=__version__,
    )


def _resumed(empty: Mechanism, kept: Path | None) -> Mechanism:
    """The card with the steps of a call that was stopped, if there is one of these weights and settings."""
    if kept is None or not kept.is_file():
        return empty
    try:
        found = Mechanism.parse(read_bytes(kept))
    except PrismaError:  # another version's, or damaged: it is written anew
        return empty
    names = [step.name for step in STEPS[: len(found.steps)]]
    same = replace(found, steps=()) == empty and [one.step for one in found.steps] == names
    return found if same else empty


def _ran(step: Step, given: Given, say: Callable[[str], None]) -> StepFindings:
    """What a step found; of one that does not apply, or that an analysis refuses, the sentence that says so."""
    try:
        return step.run(given)
    except DoesNotApplyError as why:
        return StepFindings(step.name, (why.finding,))
    except PrismaError as error:
        if step is STEPS[0]:  # without an answer there is nothing to explain
            raise
        say(f"{step.name} could not be computed: {error}")
        return StepFindings(step.name, (Finding("refused"),))
