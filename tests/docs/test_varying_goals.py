"""docs/varying-goals.md is what its script writes of the measured numbers."""

import json

import pytest

from tools.varying_goals import MICE, NUMBERS, PAGE, PICTURE, SEEDS, engineered, measured, page


def test_the_page_is_what_the_numbers_say() -> None:
    found = json.loads(NUMBERS.read_text())
    assert PAGE.read_text() == page(found), "run python tools/varying_goals.py"
    assert PICTURE.exists() and {(row["mouse"], row["seed"]) for row in found["rows"]} == {
        (mouse, seed) for mouse in MICE for seed in SEEDS
    }


def test_the_reference_is_half_at_two_communities_that_are_the_digits() -> None:
    found = measured(engineered(), 2)
    assert found["q"] == pytest.approx(0.5, abs=2e-3) and found["agree"] == 1 and found["z"] > 20
    stated = json.loads(NUMBERS.read_text())["engineered"]["2"]
    assert found["q"] == pytest.approx(stated["q"], abs=1e-6)
