"""Successive halving towards the smallest: which candidates are trained further, and when the search is over.

All candidates take a few steps with one seed. The half of them that is nearest to the frontier (no smaller one is as
accurate) takes twice as many, and so on (successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943; with the
frontier in place of one number, as in MO-ASHA, Schmucker et al. 2021, arXiv 2106.12639). The survivors are trained to
the end with all seeds. Those that were given up, and are smaller than the smallest that reached the target, come last,
the most accurate first: when none is left, every smaller candidate was trained to its end and failed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prisma.smallest.grid import Candidate


@dataclass(frozen=True)
class Trial:
    """Training that is asked for: a candidate, with a seed, up to a step."""

    candidate: Candidate
    seed: int
    steps: int


Train = Callable[[Sequence[Trial]], Sequence[float | None]]
"""The accuracies that trials reach, in their order; None: there was no time left."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    target: float
    seeds: tuple[int, ...]
    candidates: tuple[Candidate, ...]  # by their number of weights

    @property
    def smallest(self) -> Candidate | None:
        """The smallest that reached the target with every seed."""
        return next((one for one in self.candidates if one.reaches(self.target, self.seeds)), None)

    @property
    def frontier(self) -> tuple[Candidate, ...]:
        """Of the candidates that were trained to their end: those than which no smaller one is as accurate.

        The accuracy is the lowest of the seeds that were trained.
        """
        front = list[Candidate]()
        for one in (one for one in self.candidates if one.finished):
            if not front or min(one.finished.values()) > min(front[-1].finished.values()):
                front.append(one)
        return tuple(front)

    @property
    def untested(self) -> tuple[Candidate, ...]:
        """The candidates smaller than the smallest (all, if there is none) that were not trained to their end."""
        most = self.smallest.parameters if self.smallest else float("inf")
        return tuple(one for one in self.candidates if one.parameters < most and not one.fails(self.target))

    @property
    def complete(self) -> bool:
        """Whether every candidate that is smaller was trained to its end and failed."""
        return not self.untested

    def verdict(self, one: Candidate) -> str:
        """What is known of a candidate: smallest, larger (than the smallest), fails, or untested."""
        if one is self.smallest:
            return "smallest"
        if one.fails(self.target):
            return "fails"
        return "untested" if one in self.untested else "larger"

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        rows = [
            {
                "name": one.name,
                "parameters": one.parameters,
                "settings": dict(one.settings),
                "steps": one.steps,
                "accuracy": one.accuracy,
                "finished": {str(seed): accuracy for seed, accuracy in sorted(one.finished.items())},
                "verdict": self.verdict(one),
            }
            for one in self.candidates
        ]
        return {
            "target": self.target,
            "seeds": list(self.seeds),
            "complete": self.complete,
            "smallest": next((row for row in rows if row["verdict"] == "smallest"), None),
            "frontier": [row for row in rows if row["name"] in {one.name for one in self.frontier}],
            "candidates": rows,
        }


def survivors(sizes: Sequence[int], accuracies: Sequence[float], keep: int, target: float) -> list[int]:
    """Which candidates are nearest to the frontier of size and accuracy: the indices of at most `keep`, in order.

    First those than which none is smaller and as accurate, then those that are so among the rest, and so on. All
    accuracies above the target count as the target, so that a larger one is not kept for being still better.
    """
    capped = [min(accuracy, target) for accuracy in accuracies]
    left, kept = sorted(range(len(sizes)), key=lambda i: (sizes[i], -capped[i])), list[int]()
    while left and len(kept) < keep:
        front, best = list[int](), float("-inf")
        for i in left:
            if capped[i] > best:
                front, best = [*front, i], capped[i]
        front = sorted(front, key=lambda i: -capped[i])[: keep - len(kept)]
        kept += front
        left = [i for i in left if i not in front]
    return sorted(kept)


def rungs(checkpoints: Sequence[int], n: int, at_once: int) -> list[int]:
    """The steps at which `n` candidates are compared: halves of the last checkpoint, while more are left than fit."""
    steps, found, share = checkpoints[-1], list[int](), 2
    while n > max(2, at_once) and share <= 4:
        found.append(max(step for step in checkpoints if step <= max(1, steps // share)))
        n, share = -(-n // 2), share * 2
    return sorted(set(found) - {steps})


def halve(found: Found, checkpoints: Sequence[int], train: Train, at_once: int = 1) -> Iterator[str]:
    """Search until every candidate smaller than the smallest has failed, or until there is no time left.

    Args:
        found: the candidates, of which nothing need be known; what is found is noted there.
        checkpoints: the steps at which a run tells its accuracy.
        at_once: how many trainings run at a time.

    Yields:
        A sentence, each time that some trainings have ended.
    """
    everyone, first, last = found.candidates, found.seeds[0], checkpoints[-1]
    alive = list(everyone)
    for steps in rungs(checkpoints, len(everyone), at_once):
        if not _done(train, [Trial(one, first, steps) for one in alive], last):
            yield "there was no time left"
            return
        before, best = len(alive), max(alive, key=lambda one: one.accuracy)
        sizes, accuracies = [one.parameters for one in alive], [one.accuracy for one in alive]
        alive = [alive[i] for i in survivors(sizes, accuracies, -(-before // 2), found.target)]
        yield (
            f"{before} models after {steps:,} steps: the most accurate is {best.name} with {best.accuracy:.3f}; "
            f"{len(alive)} go on"
        )
    while open_ := found.untested:
        ranked = sorted(open_, key=lambda one: (-len(one.finished), -one.steps, -min(one.accuracy, found.target)))
        missing = {one.name: [seed for seed in found.seeds if seed not in one.finished] for one in ranked}
        trials = [  # the other seeds only of those whose first one was as accurate
            Trial(one, seed, last) for one in ranked for seed in missing[one.name][: None if one.finished else 1]
        ]
        there_was_time = _done(train, trials[:at_once], last)
        for one, seed in ((trial.candidate, trial.seed) for trial in trials[:at_once]):
            if seed in one.finished:
                yield f"{one.name} ({one.parameters:,} weights), seed {seed}: {one.finished[seed]:.3f}"
        if not there_was_time:
            yield "there was no time left"
            return


def _done(train: Train, trials: Sequence[Trial], last: int) -> bool:
    """Train, and note what was reached. Whether there was time for all."""
    accuracies = train(trials)
    for trial, accuracy in zip(trials, accuracies, strict=True):
        one = trial.candidate
        if accuracy is None:
            continue
        if trial.steps == last:
            one.finished[trial.seed] = accuracy
        if trial.steps > one.steps:
            one.steps, one.accuracy = trial.steps, accuracy
    return None not in accuracies
