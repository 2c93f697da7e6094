"""Several trainings at a time on the CPU, each in a process of its own."""

import os
from collections.abc import Callable, Sequence
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from threading import RLock
from typing import Any, TypeVar

from tqdm import tqdm

from prisma.errors import PrismaError
from prisma.train.config import Recipe

T = TypeVar("T")
R = TypeVar("R")
PRELOADED = [
    "torch._dynamo",  # which every optimizer imports
    "prisma.train.loop",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
]
"""What every such process imports: once, where processes can be forked from one that has it."""


def at_once(recipe: Recipe) -> int:
    """How many runs of a recipe train at a time: as many as there are cores for their threads."""
    return max(1, (os.cpu_count() or 1) // recipe.training.threads)


def in_processes(
    function: Callable[[T], R], jobs: Sequence[T], at_once: int, lost: Callable[[T], PrismaError]
) -> list[R | PrismaError]:
    """What a function answers for each job, or the PrismaError that it raises, in the order of the jobs.

    A signal that ends this process ends the others too, which save their state first.

    Args:
        function: a function of a module, since processes are told its name.
        at_once: the largest number of processes.
        lost: the error of a job whose process was killed.
    """
    context, waiting, found = _context(), list(enumerate(jobs)), dict[int, R | PrismaError]()
    running: dict[Any, tuple[int, Any]] = {}  # what a process answers through -> its job and the process
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                i, job = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_answer, args=(function, job, there))  # type: ignore[attr-defined]
                process.start()
                there.close()
                running[here] = i, process
            for ready in wait(list(running)):
                i, process = running.pop(ready)
                found[i] = _received(ready, lost, jobs[i])
                process.join()
    except BaseException:  # such as Ctrl-C
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
        raise
    return [found[i] for i in range(len(jobs))]


def _context() -> BaseContext:
    """Processes forked from one that has imported what they need; new ones where the system cannot fork."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _answer(function: Callable[[Any], Any], job: Any, there: Connection) -> None:
    tqdm.set_lock(RLock())  # its own is one of processes, and a process that a signal ends would leave it behind
    try:
        there.send(function(job))
    except PrismaError as error:
        there.send(error)
    except KeyboardInterrupt:  # a terminal tells all its processes at once
        pass


def _received(here: Any, lost: Callable[[T], PrismaError], job: T) -> Any:
    try:
        return here.recv()
    except EOFError:
        return lost(job)
