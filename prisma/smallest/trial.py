"""One training of a candidate, up to a step: in its own run folder, from which a later trial goes on."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prisma.run_folder import METRICS, is_finished, is_run, read_metrics, read_metrics_so_far
from prisma.train import Recipe, train
from prisma.train.fit import DivergedError


class _EnoughError(Exception):
    """The step is reached, or the time is over."""


@dataclass(frozen=True)
class Work:
    """What a process is told to train."""

    recipe: Recipe
    settings: Mapping[str, str]  # those that make it from the recipe of its name
    out: Path
    steps: int
    until: float  # the time, in seconds since 1970, at which it stops at its next checkpoint
    device: str

    @property
    def known(self) -> float | None:
        """The test accuracy at the step, or where the run ended early before it, if the folder has it already."""
        if is_finished(self.out):
            lines = [line for line in read_metrics(self.out / METRICS) if line["step"] <= self.steps]
            return float(lines[-1]["test_accuracy"])
        if self.steps == self.recipe.training.steps or not (self.out / METRICS).is_file():
            return None
        so_far = read_metrics_so_far(self.out / METRICS)
        return next((line["test_accuracy"] for line in so_far if line["step"] == self.steps), None)

    @property
    def command(self) -> str:
        """The command line that trains the same."""
        words = (word for key, value in self.settings.items() for word in ("--set", f"{key}={value}"))
        return shlex.join(["prisma", "train", self.recipe.name, *words])


def carry_out(work: Work) -> float | None:
    """Train up to the step, unless the time is over before.

    Returns:
        The test accuracy at the step, 0 if the loss was no number before; None if there was no time.
    """
    if (known := work.known) is not None or time.time() >= work.until:
        return known

    def look(line: Mapping[str, Any]) -> None:
        is_there = line["step"] == work.steps < work.recipe.training.steps
        if "test_accuracy" in line and (is_there or time.time() >= work.until):
            raise _EnoughError

    try:
        train(
            work.recipe,
            work.out,
            resume=is_run(work.out),
            device=work.device,
            command=work.command,
            progress=False,
            watch=look,
        )
    except _EnoughError:
        pass
    except DivergedError:
        return 0.0
    return work.known
