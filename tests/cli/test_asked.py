"""What `prisma train` is asked for: the recipe, the first weights, and the command lines that it states."""

import shutil
from pathlib import Path

import pytest
import torch
import typer

from prisma.cli.asked import asked_for
from prisma.loaded import load
from prisma.recipes import recipe
from prisma.repository import MICE


def test_a_recipe_with_changes() -> None:
    asked = asked_for("digits", ["steps=300"], None, "mit", ["lab/digits-data"], None)
    assert asked.recipe.training.steps == 300 and asked.recipe.datasets == ("lab/digits-data",)
    assert asked.stated == asked.here == "prisma train digits --set steps=300 --license mit --dataset lab/digits-data"
    assert asked.first is None


def test_fine_tuning_has_the_architecture_and_weights_of_the_model() -> None:
    asked = asked_for("digits", ["trained=last:1", "steps=200"], None, None, [], "mice/digits")
    model = load("mice/digits").model
    assert asked.first is not None and asked.recipe.model == model.config == recipe("digits").model
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in asked.first.state_dict().items())
    assert asked.recipe.training.trained == "last:1" and asked.recipe.expected_accuracy is None
    assert asked.stated == "prisma train digits --set trained=last:1 --set steps=200 --from mice/digits"
    assert asked.recipe.base_model == ()


def test_a_place_of_this_machine_is_not_stated(tmp_path: Path) -> None:
    shutil.copytree(MICE / "digits", tmp_path / "mine")
    asked = asked_for("digits", [], None, None, [], str(tmp_path / "mine"))
    assert asked.stated == "prisma train digits --from PATH" and str(tmp_path) in asked.here


def test_the_architecture_is_the_models() -> None:
    with pytest.raises(typer.BadParameter, match="expected the architecture of mice/digits; found --set d_model"):
        asked_for("digits", ["d_model=8"], None, None, [], "mice/digits")
