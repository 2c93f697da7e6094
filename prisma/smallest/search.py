"""Searching for the smallest: the trainings in processes or on devices, and the folder with all that was found."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from prisma.bounds import expect_within
from prisma.errors import PrismaError, quoted
from prisma.files import exclusive, expect_empty, folder_for, read_json, write_json
from prisma.filesystem import given, sentences
from prisma.run_folder import checkpoint_steps
from prisma.smallest.figure import draw_frontier
from prisma.smallest.grid import Grid, candidates
from prisma.smallest.halving import Found, Trial, halve
from prisma.smallest.trial import Work, carry_out
from prisma.train import Recipe
from prisma.train.machine import pick_device
from prisma.train.processes import at_once, in_processes

SEARCH = "search.json"  # the recipe of all candidates: its presence means that the folder is a search's
SMALLEST = "smallest.json"
FRONTIER = "frontier.png"
SEEDS = (0, 1, 2)
BUDGET = 840.0  # seconds


def smallest(
    recipe: Recipe,
    target: float,
    out: str | Path,
    *,
    grid: Grid | None = None,
    seeds: Sequence[int] = SEEDS,
    budget: float = BUDGET,
    device: str | None = None,
    changed: Mapping[str, str] | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> Found:
    """Which is the smallest model that learns a task, and how sure is that?

    Every architecture is trained by the recipe, with fewer steps first (`prisma.smallest.halving`). The smallest is the
    one with the fewest weights whose test accuracy is at least the target at a checkpoint, with every seed. A run ends
    at the first such checkpoint (`stop_at_accuracy`), or at the recipe's last step. The answer is the smallest of the
    grid where `complete` is true: every smaller one was trained to its last step and failed. Otherwise `untested` has
    those for which there was no time. The test images choose among candidates and checkpoints, so that the accuracy of
    a model that just reaches the target is a little high.

    Args:
        out: the folder of the search, with a run folder for each candidate and seed. The same call goes on where an
            earlier one stopped, with a new budget.
        budget: seconds after which trainings stop at their next checkpoint.
        changed: the settings in which the recipe differs from that of its name, for the command lines that are stated.
        told: is called with a sentence on each step of the search.

    Raises:
        PrismaError: a target outside (0, 1]; `out` holds something else; otherwise as `prisma.train`.
    """
    until, out, grid = time.time() + budget, given(out), grid or Grid.around(recipe)
    if not (0 < target <= 1 and budget > 0 and math.isfinite(budget)):
        raise PrismaError(f"expected a target above 0 and at most 1, and a budget above 0; found {target}, {budget}")
    _expect_seeds(seeds)
    enough = {"stop_at_accuracy": repr(float(target))}
    recipe, changed = recipe.override(enough), {**(changed or {}), **enough}
    found = Found(target, tuple(seeds), candidates(recipe, grid, changed))
    with sentences(out), exclusive(out, f"search in {out}"), folder_for(out):
        _expect_folder(out, recipe)
        train = partial(_train, found, out, until, str(pick_device(device)))
        n, steps = at_once(recipe), checkpoint_steps(recipe.training.steps, recipe.training.checkpoint_every)
        for sentence in halve(found, steps, train, n):
            told(sentence)
            _write(found, recipe, out)
    return found


def _train(found: Found, out: Path, until: float, device: str, trials: Sequence[Trial]) -> list[float | None]:
    """The accuracies that trials reach: those that are known at once, the others trained, some at a time."""
    works = [_work(trial, out, until, device, i) for i, trial in enumerate(trials)]
    known = [work.known for work in works]
    new = [work for work, accuracy in zip(works, known, strict=True) if accuracy is None]
    n = at_once(works[0].recipe) if device == "cpu" else _devices()
    answers = iter(in_processes(carry_out, new, n, _lost))
    accuracies = [next(answers) if accuracy is None else accuracy for accuracy in known]
    for accuracy in accuracies:
        if isinstance(accuracy, PrismaError):
            raise accuracy
    return [accuracy for accuracy in accuracies if not isinstance(accuracy, PrismaError)]


def _work(trial: Trial, out: Path, until: float, device: str, i: int) -> Work:
    recipe, one = trial.candidate.recipe, trial.candidate
    seeds = {"init_seed": str(trial.seed), "order_seed": str(trial.seed)}
    place = device if device != "cuda" else f"cuda:{i % _devices()}"
    folder = out / one.name / f"seed-{trial.seed}"
    return Work(recipe.override(seeds), {**one.settings, **seeds}, folder, trial.steps, until, place)


def _devices() -> int:
    return max(1, torch.cuda.device_count())


def _lost(work: Work) -> PrismaError:
    return PrismaError(
        f"expected the process that trains in {work.out} to end by itself; found that it was killed: the same command "
        "goes on from its newest state"
    )


def _expect_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise PrismaError(f"expected one seed or more, each once; found {quoted(tuple(seeds))}")
    for seed in seeds:
        expect_within("init_seed", seed)


def _expect_folder(out: Path, recipe: Recipe) -> None:
    """Raise PrismaError unless the folder is empty, or holds a search with this recipe."""
    stated = {"name": recipe.name, "model": asdict(recipe.model), "training": recipe.training.to_dict()}
    wanted = json.loads(json.dumps(stated))
    if not (out / SEARCH).is_file():
        expect_empty(out)
        write_json(out / SEARCH, wanted)
    elif read_json(out / SEARCH) != wanted:
        raise PrismaError(f"expected in {out} a search with this recipe; found one with another: use another --out")


def _write(found: Found, recipe: Recipe, out: Path) -> None:
    write_json(out / SMALLEST, found.to_dict())
    if found.frontier:
        draw_frontier(found, recipe.name, out / FRONTIER)
