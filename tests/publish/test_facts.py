import math
from typing import Any

import pytest

from prisma.errors import PrismaError
from prisma.publish.facts import Fact

RECIPE = Fact({"task": {"name": "digits", "n": 3, "none": None}, "betas": [0.9, 0.999]}, "recipe.json")


def test_a_value_is_found_at_its_place() -> None:
    assert RECIPE["task"]["name"].text() == "digits"
    assert RECIPE["task"]["n"].whole(1) == RECIPE["task"]["n"].number(0, 3) == 3
    assert RECIPE["task"].get("none") is None and RECIPE.get("absent") is None
    assert list(RECIPE["task"].items()) == ["name", "n"]
    assert [row.field for row in RECIPE["betas"].rows()] == ["betas[0]", "betas[1]"]


@pytest.mark.parametrize(
    ("value", "words"),
    [("AdamW", "AdamW"), (32, "32"), (0.5, "0.5"), (True, "true"), ([0.9, 0.999], "0.9, 0.999"), (1e-8, "1e-08")],
)
def test_a_setting_is_text(value: Any, words: str) -> None:
    assert Fact(value, "recipe.json", "x").setting() == words


@pytest.mark.parametrize(
    ("value", "method", "words"),
    [
        ([], "text", "to be text; found []"),
        (math.inf, "number", "to be a finite number; found inf"),
        (True, "number", "to be a finite number; found True"),
        (10**400, "number", "to be a finite number; found 1000"),
        (1.0, "whole", "to be a whole number of at least 0; found 1.0"),
        (2**60, "whole", "to be a whole number of at least 0; found 1152921504606846976"),
        ({}, "setting", "to be text; found {}"),
        ("ab", "rows", "to be a list; found 'ab'"),
        ([1] * 101, "rows", "to have at most 100 entries, not 101; found [1, 1"),
        (3, "items", "to be an object with named fields; found 3"),
    ],
)
def test_a_wrong_value_is_named_by_file_and_field(value: Any, method: str, words: str) -> None:
    with pytest.raises(PrismaError) as error:
        getattr(Fact(value, "results.json", "a.b"), method)()
    assert str(error.value).startswith(f"expected a.b in results.json {words}")


def test_bounds_are_in_the_sentence() -> None:
    with pytest.raises(PrismaError, match=r"^expected v in f to be from 0 to 1; found 1\.5$"):
        Fact(1.5, "f", "v").number(0, 1)
    with pytest.raises(PrismaError, match=r"^expected task\.age in recipe\.json; found none$"):
        _ = RECIPE["task"]["age"]
