"""Training a recipe with several seeds: how far is a number the seed's, and how far the recipe's?

A seed counts for both roles, the first weights and the batches. On a GPU the runs take every step together; on a CPU
each has a process of its own, as many at a time as there are cores for the threads of the recipe. On a task that was
added in this process, which others do not know, they take their steps together on a CPU too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from prisma.bounds import NUMBERS
from prisma.data import is_added
from prisma.errors import PrismaError, quoted
from prisma.run_folder import is_run
from prisma.train.config import Recipe
from prisma.train.loop import Job, train_together
from prisma.train.machine import pick_device
from prisma.train.processes import at_once, in_processes

MOST = 1000  # seeds at once
_RANGE = re.compile(r"(\d{1,10})(?:\.\.(\d{1,10}))?")


def seeds_in(text: str) -> tuple[int, ...]:
    """The seeds that a text names: "0..31", "5", "0,2,7..9".

    Raises:
        PrismaError: it names none, one twice, more than 1,000, or a number that is no seed.
    """
    matches = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    ends = [(int(m[1]), int(m[2] or m[1])) for m in matches if m]
    found = [seed for first, last in ends if last - first < MOST for seed in range(first, last + 1)]
    largest = NUMBERS["init_seed"][1]
    if not all(matches) or not 0 < len(set(found)) == len(found) <= MOST or max(found) > largest:
        raise PrismaError(
            f"expected at most {MOST:,} different seeds from 0 to {largest:,}, such as 0..31 or 0,2,5; found "
            f"{quoted(text)}"
        )
    return tuple(found)


def train_seeds(
    recipe: Recipe,
    out: Path,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    device: str | None = None,
    command: str = "prisma train",
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train a recipe once for each seed, into `out/seed-SEED`, and return the content of each `results.json`.

    Args:
        resume: continue the runs that were begun; the others begin.
        command: the command line of one run, without its seeds.

    Raises:
        PrismaError: as `prisma.train`; other runs go on to their end.
    """
    jobs = [_job(recipe, out, seed, resume, command) for seed in seeds]
    if len(jobs) == 1 or pick_device(device).type != "cpu" or is_added(recipe.task):
        return train_together(jobs, device=device, progress=progress)
    results = in_processes(_train, jobs, at_once(recipe), _lost)
    for result in results:
        if isinstance(result, PrismaError):
            raise result
    return [result for result in results if not isinstance(result, PrismaError)]


def _train(job: Job) -> dict[str, Any]:
    return train_together([job], device="cpu", progress=False)[0]


def _lost(job: Job) -> PrismaError:
    return PrismaError(
        f"expected the process that trains in {job.out} to end by itself; found that it was killed: --resume "
        "continues from its newest state"
    )


def _job(recipe: Recipe, out: Path, seed: int, resume: bool, command: str) -> Job:
    training = replace(recipe.training, init_seed=seed, order_seed=seed)
    folder, words = out / f"seed-{seed}", f"{command} --set init_seed={seed} --set order_seed={seed}"
    return Job(replace(recipe, training=training), folder, words, resume and is_run(folder))


def over_seeds(results: Sequence[Mapping[str, Any]], name: str = "test accuracy") -> dict[str, float]:
    """{"mean", "sd", "least", "largest"} of a number over runs; the standard deviation of one run is 0.

    Args:
        name: of a row of the results, such as "test r2" where the objective has no accuracy.
    """
    values = [row["value"] for found in results for row in found["results"] if row["name"] == name]
    parts: dict[str, Callable[[list[float]], float]] = {"mean": mean, "sd": stdev, "least": min, "largest": max}
    return {part: function(values) if len(values) > 1 or part != "sd" else 0.0 for part, function in parts.items()}
