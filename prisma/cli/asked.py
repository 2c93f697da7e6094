"""What `prisma train` is asked for: a recipe with changes, data, and perhaps a trained model to begin with."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import typer

from prisma.cli.shared import settings_of

if TYPE_CHECKING:
    from prisma.train import Recipe
    from prisma.vit import ViT


@dataclass(frozen=True)
class Asked:
    """A run that is asked for."""

    recipe: "Recipe"
    stated: str  # the command line that the run states: without places of this machine
    here: str  # the one that continues it here
    first: "ViT | None" = None  # a model with the first weights


def asked_for(
    name: str,
    settings: Sequence[str],
    data: str | None,
    license: str | None,
    datasets: Sequence[str],
    base: str | None,
) -> Asked:
    """The recipe of a name, of a Python file, or (with `base`) of a task whose data are at a path: `NAME:PATH`."""
    from prisma.train.fine_tuning import repository_of

    recipe, first = _recipe(name, settings, data) if base is None else _fine_tuned(name, settings, data, base)
    recipe = replace(recipe, license=license or recipe.license, datasets=tuple(datasets or recipe.datasets))
    repo = repository_of(base) if base is not None else None
    if repo is not None:
        recipe = replace(recipe, base_model=(repo,))
    words = [*(word for pair in settings for word in ("--set", pair)), *(["--license", license] if license else [])]
    words += [word for one in datasets for word in ("--dataset", one)]
    kind, at, _ = name.partition(":") if base is not None else (name, "", "")
    stated, here = ["prisma", "train", f"{kind}:PATH" if at else name, *words], ["prisma", "train", name, *words]
    for option, place, private in (("--from", base, repo is None), ("--data", data, True)):
        if place is not None:
            stated += [option, "PATH" if private and not place.startswith("mice/") else place]
            here += [option, place]
    return Asked(recipe, shlex.join(stated), shlex.join(here), first)


def _recipe(name: str, settings: Sequence[str], data: str | None) -> "tuple[Recipe, None]":
    from prisma.recipes import recipe
    from prisma.recipes.own import is_recipe_file, recipe_in

    found = (recipe_in(name) if is_recipe_file(name) else recipe(name)).override(settings_of(settings))
    return found if data is None else replace(found, task=f"{found.task}:{data}"), None


def _fine_tuned(name: str, settings: Sequence[str], data: str | None, base: str) -> "tuple[Recipe, ViT]":
    """The recipe with the architecture of a trained model, and this model fitted to the task."""
    from prisma.config import ViTConfig
    from prisma.data import task
    from prisma.loaded import load
    from prisma.train.fine_tuning import fitted
    from prisma.train.notebook import recipe_of

    given = settings_of(settings)
    if own := [key for key in given if key in {each.name for each in fields(ViTConfig)}]:
        raise typer.BadParameter(f"expected the architecture of {base}; found --set {own[0]}", param_hint="--set")
    if ":" in name:
        model = fitted(load(base), task(name), int(given.get("init_seed", "0")), given.get("init", "fan_in"))
        return recipe_of(model, name, {}).override(given), model
    recipe, _ = _recipe(name, settings, data)
    model = fitted(load(base), task(recipe.task), recipe.training.init_seed, recipe.training.init)
    return replace(recipe, model=model.config, expected_accuracy=None, published_accuracy=None), model
