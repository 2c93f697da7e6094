"""What a mechanism card is about: a mouse with its task, what it was trained for, and its checkpoints."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prisma.checkpoint import WEIGHTS
from prisma.data import known_task
from prisma.data.task import Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest, quoted, shown
from prisma.files import read_json, sha256
from prisma.filesystem import given
from prisma.loaded import Loaded, load
from prisma.pretrained.loading import is_folder
from prisma.pretrained.references import may_be_published
from prisma.recipes import RECIPES
from prisma.repo_names import is_repo_name
from prisma.repository import MICE, Published
from prisma.run_folder import RECIPE, checkpoint_folders, read_recipe, step_in
from prisma.train.config import objective_in
from prisma.train.objectives import OBJECTIVES, Objective
from prisma.vit import ViT

SHIPPED = "mice/"


@dataclass(frozen=True, eq=False)
class Subject:
    """A mouse."""

    name: str  # that may be printed
    model: ViT
    transform: Transform
    task: Task
    objective: Objective
    weights: str  # SHA-256 of the file of its weights
    checkpoints: Mapping[int, Callable[[], ViT]] | None = None  # by step; None: final weights alone


def subject(ref: str | Path, hub: str | Path | None = None) -> Subject:
    """The mouse that a reference means: `mice/NAME`, `OWNER/NAME`, a run folder, or a folder of what is published.

    Raises:
        PrismaError: it is no mouse, its recipe cannot be read, or the data of its task are not here.
    """
    if not isinstance(ref, str | Path) or not isinstance(hub, str | Path | None) or str(ref) == "" or hub == "":
        raise PrismaError(f"expected the name or the folder of a mouse, and a folder hub or none; found {quoted(ref)}")
    hub = hub if hub is None else given(hub)
    if hub is None and is_folder(ref):
        return _in_folder(given(ref))
    if hub is None and str(ref).startswith(SHIPPED):
        return _shipped(str(ref))
    if is_repo_name(str(ref)) and (hub is not None or may_be_published(str(ref))):
        return _published(str(ref), hub)
    raise PrismaError(
        f"expected a mouse: OWNER/NAME, mice/NAME, or a folder with {RECIPE}, for a mechanism card needs the task that "
        f"a model was trained on; found {quoted(str(ref))}"
    )


def _in_folder(folder: Path) -> Subject:
    """A run folder, or the files of a published mouse."""
    if not (folder / RECIPE).is_file():
        raise PrismaError(
            f"expected a mouse with its {RECIPE}, which says what it was trained on, in {folder}; found no such file"
        )
    recipe, loaded = read_recipe(folder), load(folder)
    named = recipe.get("recipe")
    name = named if isinstance(named, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,90}", named) else "mouse"
    steps = {step_in(one.name.removeprefix("step-")): one for one in checkpoint_folders(folder)}
    known = {step: partial(_model, str(one), None, None) for step, one in steps.items() if step is not None}
    return _of_recipe(name, loaded, recipe, folder / WEIGHTS, known or None)


def _shipped(ref: str) -> Subject:
    loaded, name = load(ref), ref.removeprefix(SHIPPED)
    if name not in RECIPES:
        raise PrismaError(f"expected a mouse with a recipe; found {quoted(ref)}; the nearest: {nearest(name, RECIPES)}")
    recipe = RECIPES[name]
    task = known_task(recipe.task)
    objective = OBJECTIVES[recipe.training.objective].of(loaded.config, recipe.training, task)
    return _checked(ref, loaded, task, objective, MICE / name / WEIGHTS, None)


def _published(repo: str, hub: Path | None) -> Subject:
    mouse = Published(repo, hub)
    recipe, loaded = read_json(mouse.file(RECIPE)), load(repo, hub=hub)
    known = {int(row["step"]): partial(_model, repo, str(row["revision"]), hub) for row in mouse.checkpoints()}
    return _of_recipe(repo, loaded, recipe, mouse.file(WEIGHTS), known)


def _model(ref: str, revision: str | None, hub: Path | None) -> ViT:
    return load(ref, revision, hub).model


def _of_recipe(
    name: str,
    loaded: Loaded,
    recipe: Mapping[str, Any],
    weights: Path,
    checkpoints: Mapping[int, Callable[[], ViT]] | None,
) -> Subject:
    """With the task that `recipe.json` states, of which no place on this machine is looked at."""
    stated = recipe.get("task")
    if not isinstance(stated, Mapping) or not isinstance(stated.get("name"), str):
        raise PrismaError(f"expected the name of a task in {RECIPE}; found {quoted(stated)}")
    task = known_task(stated["name"])
    if task.is_here and stated.get("sha256") != task.sha256:
        raise PrismaError(
            f"expected a mouse that was trained on the data of the task {task.name}, of hash {task.sha256}; found "
            f"{shown(stated.get('sha256'))}"
        )
    return _checked(name, loaded, task, objective_in(recipe, loaded.config, task), weights, checkpoints)


def _checked(
    name: str,
    loaded: Loaded,
    task: Task,
    objective: Objective,
    weights: Path,
    checkpoints: Mapping[int, Callable[[], ViT]] | None,
) -> Subject:
    if not task.is_here:
        raise PrismaError(
            f"expected a task whose images this machine has or can make; found {task.name}, whose data are elsewhere"
        )
    transform = loaded.transform or task.transform
    shape = tuple(task.splits["test"].images.shape[1:])
    if shape != tuple(loaded.config.input_shape):
        raise PrismaError(
            f"expected a mouse that takes the images of {task.name}, {list(shape)}; found one that takes "
            f"{list(loaded.config.input_shape)}"
        )
    return Subject(name, loaded.model, transform, task, objective, sha256(weights), checkpoints)
