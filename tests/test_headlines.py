import pytest

from prisma.errors import PrismaError
from prisma.headlines import objective_of
from prisma.run_folder import curve_kinds, needed_files


def test_a_recipe_that_states_no_objective_is_one_of_classification() -> None:
    for recipe in ({}, {"training": None}, {"training": {"steps": 3}}, {"training": {"objective": "classification"}}):
        assert objective_of(recipe) == "classification" and curve_kinds(recipe) == ("loss", "accuracy")
    masked = {"training": {"objective": "masked"}}
    assert objective_of(masked) == "masked" and curve_kinds(masked) == ("loss", "r2")
    assert {"curves/r2.png", "curves/r2.svg"} < set(needed_files(masked))
    assert not any("accuracy" in name for name in needed_files(masked))


@pytest.mark.parametrize("found", ["mask", 3, None, ["masked"]])
def test_another_objective_is_refused(found: object) -> None:
    with pytest.raises(PrismaError, match=r"expected objective in recipe\.json to be one of classification, several, "):
        objective_of({"training": {"objective": found}})
