from typing import Any

import pytest

from prisma.publish.emissions import cost, duration
from prisma.publish.facts import Fact

CPU = {"device": "cpu", "threads": 2}


def found(results: dict[str, Any], *places: dict[str, Any]) -> Any:
    return cost([Fact(place, "recipe.json") for place in places or (CPU,)], Fact(results, "results.json"))


def test_time_times_power_times_the_grid() -> None:
    """Two cores of 12 W for 1,000 s: 24,000 J, or 6.67 Wh, of 473 g per kWh."""
    estimate = found({"seconds": 1000})
    assert estimate.kwh == pytest.approx(24_000 / 3.6e6) and estimate.grams == pytest.approx(24 / 3600 * 473)
    assert estimate.hardware == "2 cores of a CPU" and estimate.words.startswith("estimate: 16 min 40 s x 24 W (")


def test_the_words_state_sources_years_and_what_is_left_out() -> None:
    words = found({"seconds": 1000}).words
    for part in ("Green Algorithms", "2021", "473 g of CO2 equivalents per kWh", "2024", "Ember", "are left out"):
        assert part in words, part
    assert "NVIDIA specifies" in found({"seconds": 9}, {"device": "NVIDIA L4", "threads": 1}).words


def test_a_known_device_has_its_power() -> None:
    gpu = {"device": "NVIDIA H100 80GB HBM3", "threads": 1}
    assert found({"seconds": 3600}, gpu, gpu).kwh == pytest.approx(0.7)
    assert found({"seconds": 3600}, gpu).hardware == "1 NVIDIA H100 80GB HBM3"


def test_measured_energy_comes_first() -> None:
    measured = found({"seconds": 1000, "energy_kwh": 2}, {"device": "a new device", "threads": 1})
    assert (measured.kwh, measured.grams) == (2, 946) and measured.words.startswith("measured energy")


@pytest.mark.parametrize(
    ("results", "places"),
    [
        ({}, [CPU]),
        ({"seconds": 9}, [{"device": "a new device", "threads": 1}]),
        ({"seconds": 9}, [CPU, {"device": "NVIDIA L4", "threads": 2}]),
        ({"seconds": 9}, [{"python": "3.11"}]),
        ({"seconds": 9}, [CPU, {"python": "3.11"}]),
    ],
)
def test_what_is_unknown_is_not_invented(results: dict[str, Any], places: list[dict[str, Any]]) -> None:
    assert found(results, *places) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.5 s"), (59.4, "59.4 s"), (60, "1 min 0 s"), (3599.9, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
