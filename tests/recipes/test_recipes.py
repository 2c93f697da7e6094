"""Every recipe is a document."""

from importlib import import_module

import pytest

from prisma.data import task
from prisma.errors import PrismaError
from prisma.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_after_its_file_and_says_how_long_and_how_good(name: str) -> None:
    chosen, family = recipe(name), name.partition("-")[0]
    assert chosen.name == name
    text = import_module(f"prisma.recipes.{family}").__doc__ or ""
    assert f"prisma train {family}" in text
    expected = chosen.expected_r2 if chosen.objective.headline == "r2" else chosen.expected_accuracy
    if task(chosen.task).is_here:
        assert expected is not None
    assert expected is None or 0 < expected <= 1
    for word in ("seconds", "Seeds", "accuracy"):
        assert word in text, word


def test_an_unknown_recipe_offers_the_nearest() -> None:
    with pytest.raises(PrismaError, match="there is no recipe 'digit'; the nearest: digits"):
        recipe("digit")
