"""The mice that are shipped with the package: each has its recipe and the accuracy that the recipe states.

A recipe needs no weights in the package.
"""

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import prisma
from prisma import PrismaError
from prisma.checkpoint import CONFIG, WEIGHTS, read_tensors
from prisma.cli import main
from prisma.data import task
from prisma.recipes import RECIPES, recipe
from prisma.repository import MICE
from prisma.train.evaluate import evaluate
from tools.cards import shipped_mice

NAMES = sorted(folder.name for folder in MICE.iterdir())


def test_each_has_a_recipe_and_they_are_small() -> None:
    assert NAMES and set(NAMES) <= set(RECIPES)
    files = [path for path in MICE.rglob("*") if path.is_file()]
    expected = {MICE / name / file for name in NAMES for file in (CONFIG, WEIGHTS)}
    assert set(files) == expected
    assert sum(path.stat().st_size for path in files) <= 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_architecture_of_its_recipe_and_the_labels_of_its_task(name: str) -> None:
    chosen, loaded = recipe(name), prisma.load(f"mice/{name}")
    assert loaded.config == chosen.model
    assert (loaded.labels, loaded.transform) == (task(chosen.task).labels, task(chosen.task).transform)
    assert read_tensors(MICE / name / WEIGHTS)[1]["step"] == str(chosen.training.steps)
    assert json.loads((MICE / name / CONFIG).read_text())["labels"] == list(loaded.labels)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_accuracy_that_its_recipe_states(name: str) -> None:
    text = import_module(f"prisma.recipes.{name}").__doc__ or ""
    stated = re.search(r"Expected test accuracy on the ([\d,]+) test\s+\w+: ([\d.]+\d)", text)
    assert stated and float(stated[2]) == recipe(name).expected_accuracy
    images, labels = task(recipe(name).task).inputs("test")
    assert len(images) == int(stated[1].replace(",", ""))
    assert f"{evaluate(prisma.load(f'mice/{name}').model, images, labels)[1]:.3f}" == stated[2]


def test_a_recipe_without_weights_is_listed_and_trained_and_not_shipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    new = replace(recipe("digits").override({"steps": "2", "warmup": "1"}), name="unshipped")
    monkeypatch.setattr("prisma.recipes.RECIPES", {**RECIPES, new.name: new})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prisma", "mice", "--json"])
    with pytest.raises(SystemExit):
        main()
    shipped = {row["name"]: row["shipped"] for row in json.loads(capsys.readouterr().out)}
    assert shipped == {**{name: name in NAMES for name in RECIPES}, new.name: False}
    monkeypatch.setattr("sys.argv", ["prisma", "train", new.name, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and json.loads(capsys.readouterr().out)["recipe"] == new.name
    with pytest.raises(PrismaError, match="there is no mouse 'mice/unshipped' in this package"):
        prisma.load("mice/unshipped")
    assert sorted(shipped_mice()) == NAMES
