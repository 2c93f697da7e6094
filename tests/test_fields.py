"""Values are checked against type hints, parsed from text, and gathered into dataclasses; errors name the field."""

from dataclasses import dataclass
from typing import Any

import pytest

from prisma.errors import PrismaError
from prisma.fields import check_types, conform, from_dict, parse


@dataclass(frozen=True)
class Example:
    size: int | tuple[int, int]
    rate: float = 0.5
    rows: tuple[tuple[float, ...], ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        check_types(self)


PARSED: list[tuple[str, Any, Any]] = [
    ("500", int, 500),
    ("1e-4", float, 1e-4),
    ("TRUE", bool, True),
    ("no", bool, False),
    ("mean", str, "mean"),
    ("4", int | tuple[int, int], 4),
    ("4,2", int | tuple[int, int], (4, 2)),
    ("3", int | None, 3),
    ("None", float | None, None),
    ("1,2.5,3", tuple[float, ...], (1.0, 2.5, 3.0)),
]


def test_text_becomes_a_value_of_its_kind() -> None:
    for text, kind, value in PARSED:
        found = parse("x", text, kind)
        assert (found, type(found)) == (value, type(value)), f"{text!r} as {kind}"


UNPARSED: list[tuple[str, Any, str]] = [
    ("many", int, "a whole number"),
    ("1.5", int, "a whole number"),
    ("fast", float, "a number"),
    ("maybe", bool, "true or false"),
    ("4x4", int | tuple[int, int], "a whole number or a pair of whole numbers such as 4,2"),
    ("1,2,3", int | tuple[int, int], "a whole number or a pair of whole numbers such as 4,2"),
    ("nothing", int | None, "a whole number or none"),
    ("a,b", tuple[float, ...], "a list of which each is a number"),
]


def test_text_that_does_not_spell_the_kind_is_refused() -> None:
    for text, kind, words in UNPARSED:
        with pytest.raises(PrismaError) as error:
            parse("x", text, kind)
            pytest.fail(f"{text!r} is taken as {kind}")
        assert str(error.value) == f"expected x to be {words}; found {text!r}"


def test_values_are_conformed() -> None:
    found = Example([4, 2], 1, [[1, 2.5], [3]])  # type: ignore[arg-type]
    assert found == Example((4, 2), 1.0, ((1.0, 2.5), (3.0,)))
    assert type(found.rate) is float
    assert hash(found)


WRONG: list[tuple[Any, Any]] = [
    (True, int), (1, bool), ("1", int), (1.0, int), (None, int), (True, float), ("4", float), ((1, 2), tuple[int]),
    ((1.0, 2), tuple[int, int]), ("ab", tuple[str, ...]), ([["x"]], tuple[tuple[float, ...], ...]), (1, str | None),
]  # fmt: skip


def test_values_of_another_type_are_refused() -> None:
    for value, kind in WRONG:
        with pytest.raises(PrismaError, match=r"^expected x to be .*; found "):
            conform("x", value, kind)
            pytest.fail(f"{value!r} is taken as {kind}")


def test_from_dict_fills_in_defaults() -> None:
    assert from_dict(Example, {"size": [4, 2], "limit": 3}, "file.json") == Example((4, 2), limit=3)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1], r"expected file.json to hold named fields; found \[1\]"),
        ({"size": 1, "rat": 2}, "file.json has an unknown field 'rat'; the nearest known: rate"),
        ({"rate": 1.0}, "file.json lacks the field size"),
        ({"size": "big"}, "expected size to be a whole number or a pair .*; found 'big'"),
    ],
)
def test_from_dict_names_what_is_wrong(values: Any, sentence: str) -> None:
    with pytest.raises(PrismaError, match=rf"^{sentence}"):
        from_dict(Example, values, "file.json")


def test_half_of_a_character_is_no_setting() -> None:
    for kind, words in ((str, "text"), (int, "a whole number"), (float, "a number"), (bool, "true or false")):
        with pytest.raises(PrismaError, match=rf"^expected x to be {words}; found 'a.*ud800'$"):
            parse("x", "a\ud800", kind)
