"""Training a recipe with several seeds: how far is a number the seed's, and how far the recipe's?

A seed counts for both roles, the first weights and the batches. On a GPU the runs take every step together; on a CPU
each has a process of its own, as many at a time as there are cores for the threads of the recipe. On a task that was
added in this process, which others do not know, they take their steps together on a CPU too.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import mean, stdev
from threading import RLock
from typing import Any

from tqdm import tqdm

from prisma.bounds import NUMBERS
from prisma.data import is_added
from prisma.errors import PrismaError, quoted
from prisma.run_folder import is_run
from prisma.train.config import Recipe
from prisma.train.loop import Job, train_together
from prisma.train.machine import pick_device

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
    return _in_processes(jobs, max(1, (os.cpu_count() or 1) // recipe.training.threads))


def _in_processes(jobs: Sequence[Job], at_once: int) -> list[dict[str, Any]]:
    """Train each run in a process of its own, some at once. Raises the first error, once all others have ended."""
    context, waiting, found = get_context("spawn"), list(enumerate(jobs)), dict[int, dict[str, Any] | PrismaError]()
    running: dict[Any, tuple[int, SpawnProcess]] = {}  # what a process answers through -> its job and the process
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                i, job = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_answer, args=(job, there))
                process.start()
                there.close()
                running[here] = i, process
            for ready in wait(list(running)):
                i, process = running.pop(ready)
                found[i] = _answer_of(ready, jobs[i])
                process.join()
    except BaseException:  # such as Ctrl-C: each process saves its state before it ends
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
        raise
    results = [found[i] for i in range(len(jobs))]
    for result in results:
        if isinstance(result, PrismaError):
            raise result
    return [result for result in results if not isinstance(result, PrismaError)]


def _answer(job: Job, there: Connection) -> None:
    tqdm.set_lock(RLock())  # its own is one of processes, and a process that a signal ends would leave it behind
    try:
        there.send(train_together([job], device="cpu", progress=False)[0])
    except PrismaError as error:
        there.send(error)
    except KeyboardInterrupt:  # a terminal tells all its processes at once
        pass


def _answer_of(here: Any, job: Job) -> dict[str, Any] | PrismaError:
    try:
        answer: dict[str, Any] | PrismaError = here.recv()
    except EOFError:
        return PrismaError(
            f"expected the process that trains in {job.out} to end by itself; found that it was killed: --resume "
            "continues from its newest state"
        )
    return answer


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
