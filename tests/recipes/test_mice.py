"""The mice that come with the package are those of the recipes, and as good as the recipes say."""

import json
import re
from importlib import import_module

import pytest

import prisma
from prisma.checkpoint import CONFIG, WEIGHTS, read_tensors
from prisma.data import task
from prisma.loaded import MICE
from prisma.recipes import RECIPES, recipe
from prisma.train.evaluate import evaluate

NAMES = sorted(folder.name for folder in MICE.iterdir())


def test_there_is_one_for_each_recipe_and_they_are_small() -> None:
    assert sorted(RECIPES) == NAMES
    files = [path for path in MICE.rglob("*") if path.is_file()]
    expected = {MICE / name / file for name in NAMES for file in (CONFIG, WEIGHTS)}
    assert set(files) == expected
    assert sum(path.stat().st_size for path in files) <= 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_it_is_of_its_recipe_and_its_task(name: str) -> None:
    chosen, loaded = recipe(name), prisma.load(f"mice/{name}")
    assert loaded.config == chosen.model
    assert (loaded.labels, loaded.transform) == (task(chosen.task).labels, task(chosen.task).transform)
    assert read_tensors(MICE / name / WEIGHTS)[1]["step"] == str(chosen.training.steps)
    assert json.loads((MICE / name / CONFIG).read_text())["labels"] == list(loaded.labels)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_as_good_as_its_recipe_says(name: str) -> None:
    text = import_module(f"prisma.recipes.{name}").__doc__ or ""
    stated = re.search(r"Expected test accuracy on the ([\d,]+) test\s+\w+: ([\d.]+\d)", text)
    assert stated
    images, labels = task(recipe(name).task).inputs("test")
    assert len(images) == int(stated[1].replace(",", ""))
    assert f"{evaluate(prisma.load(f'mice/{name}').model, images, labels)[1]:.3f}" == stated[2]
