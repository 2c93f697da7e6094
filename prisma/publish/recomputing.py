"""Do the weights of a checkpoint have the loss and accuracy that `metrics.jsonl` states? Both are computed again.

What an objective measures instead of an accuracy is computed alike. An objective with a decoder is an exception: its
numbers are of encoder and decoder, and checkpoints hold the encoder alone, so nothing can be compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prisma.checkpoint import Checkpoint, read_checkpoint
from prisma.data import known_task
from prisma.data.task import Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError, shown
from prisma.fields import from_dict
from prisma.filesystem import say_once
from prisma.run_folder import METRICS, RECIPE, RESULTS
from prisma.train.config import TrainConfig, objective_in
from prisma.train.evaluate import evaluate
from prisma.train.loop import EVALUATED
from prisma.train.objectives import CLASSIFICATION, Objective
from prisma.train.order import batch
from prisma.vit import ViT

CLOSE = 2e-3  # times the loss, at least 1: above the rounding of a GPU's convolutions, far below what damage changes
SHARE = 2e-3  # of the images, and at least two of them: where two logits are nearly equal, rounding decides


def loss_problems(
    checkpoint: Checkpoint,
    line: Mapping[str, Any],
    data: Task,
    split: str,
    objective: Objective = CLASSIFICATION,
) -> Iterator[str]:
    """How loss and accuracy on a split differ from those that a line of the metrics states, if it states any."""
    names = [f"{split}_{measure}" for measure in objective.measures]
    if objective.has_decoder or not {*names} <= line.keys():
        return
    images, targets = data.splits[split].images[:EVALUATED], objective.targets(data.splits[split])[:EVALUATED]
    images = Transform.from_dict(checkpoint.transform).normalise(images)
    found = evaluate(objective.learner(checkpoint.model), images, targets, objective=objective)
    for name, value in zip(names, found, strict=True):
        is_share = name.endswith("accuracy")
        if not _is_close(line[name], value, max(2 / len(images), SHARE) if is_share else CLOSE * max(1.0, abs(value))):
            yield f"expected {name} {shown(line[name])}, as in {METRICS}; found weights that have {value:.6g}"


def batch_problems(
    checkpoint: Checkpoint, line: Mapping[str, Any], data: Task, recipe: Mapping[str, Any], step: int
) -> Iterator[str]:
    """How the loss on the batch of a step, which is built again from the recipe, differs from the stated one."""
    if (
        "loss" not in line
        or (loss := batch_loss(checkpoint.model, Transform.from_dict(checkpoint.transform), recipe, data, step)) is None
    ):
        return
    if not _is_close(line["loss"], loss, CLOSE * max(1.0, abs(loss))):
        yield f"expected loss {shown(line['loss'])} on the batch of its step, as in {METRICS}; found {loss:.6g}"


def batch_loss(model: ViT, transform: Transform, recipe: Mapping[str, Any], data: Task, step: int) -> float | None:
    """The loss of a model on the batch of a step; None where only a decoder that is not there could tell.

    Args:
        recipe: the content of `recipe.json`.
    """
    objective = objective_in(recipe, model.config, data)
    if objective.has_decoder:
        return None
    training = from_dict(TrainConfig, recipe.get("training"), f"training of {RECIPE}")
    split = data.splits["train"]
    images, targets = batch(replace(split, labels=objective.targets(split)), transform, training, step)
    draws = objective.draws(len(images), step)
    return evaluate(objective.learner(model), images, targets, objective=objective, draws=draws)[0]


def expect_stated_numbers(
    folders: Mapping[int, Path],
    recipe: Mapping[str, Any],
    metrics: Mapping[int, Mapping[str, Any]],
    results: Mapping[str, Any],
) -> None:
    """Raise PrismaError unless each checkpoint has the test loss and accuracy that the run states.

    Where this version of Prisma cannot build the run's data, it says once that this was not checked.

    Args:
        folders: the checkpoints of the run, by step.
        recipe: the content of `recipe.json`; metrics: the lines of `metrics.jsonl` by step; results: of `results.json`.
    """
    for row in results["results"]:
        stated = metrics[max(folders)].get(row["name"].replace(" ", "_"))
        if stated is not None and row["value"] != stated:
            raise PrismaError(
                f"expected {shown(row['name'])} {shown(stated)} in {RESULTS}, as in the last line of {METRICS}; found "
                f"{shown(row['value'])}"
            )
    if (data := _data_of(recipe)) is None:
        say_once(
            "this version of Prisma cannot build the data of the run: the losses of its checkpoints were not computed "
            "again before publishing"
        )
        return
    for step, folder in folders.items():
        checkpoint = read_checkpoint(folder)
        objective = objective_in(recipe, checkpoint.model.config, data)
        for problem in loss_problems(checkpoint, metrics[step], data, "test", objective):
            raise PrismaError(f"{folder}: {problem}")


def _data_of(recipe: Mapping[str, Any]) -> Task | None:
    """The data that a recipe states, if this version builds the same."""
    try:
        data = known_task(recipe["task"]["name"])
    except (PrismaError, KeyError, TypeError):
        return None
    return data if data.sha256 == recipe["task"].get("sha256") else None


def _is_close(stated: Any, found: float, limit: float) -> bool:
    return isinstance(stated, int | float) and abs(stated - found) <= limit
