"""Figures of a circuit are those of its pairs: areas, intervals and random circuits by plain arithmetic."""

import json

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.circuits.circuit_discovery import check_circuit, circuit_discovery
from prisma.analysis.circuits.circuit_figures import PROPORTIONS, CircuitFigures
from tests.analysis.circuits.test_circuit_discovery import INDUCTION, INDUCTION_METRIC, INDUCTION_PAIRS
from tests.planted_circuits import induction


def example(pairs: int = 40) -> CircuitFigures:
    """A circuit that gives 0.9 of the total effect of 4, with noise; the curve rises, overshoots, and ends at 1."""
    noise = torch.randn(3, pairs, generator=torch.Generator().manual_seed(0)).double()
    ablated, clean = noise[0], 4 + noise[0] + 0.1 * noise[1]
    curve = torch.tensor([0, 0, 0, 0.1, 0.2, 0.5, 1.3, 1.1, 1.0, 1.0], dtype=torch.float64)
    total = (clean - ablated).mean()
    return CircuitFigures(
        metadata={"enough": 0.8, "total_to_spread": 40.0},
        values=ablated + 0.9 * (clean - ablated) + 0.5 * noise[2],
        complement=ablated.clone(),
        clean=clean,
        ablated=ablated,
        random_values=torch.stack([ablated, clean]),
        curve_values=ablated.mean() + curve[:, None] * total + torch.zeros(1, pairs, dtype=torch.float64),
    )


def test_areas_are_those_of_mib() -> None:
    curve, found = [0, 0, 0, 0.1, 0.2, 0.5, 1.3, 1.1, 1.0, 1.0], example()
    steps = range(len(PROPORTIONS) - 1)
    width = [PROPORTIONS[i + 1] - PROPORTIONS[i] for i in steps]
    assert found.cpr == pytest.approx(sum(width[i] * (curve[i] + curve[i + 1]) / 2 for i in steps))
    gap = [abs(1 - x) for x in curve]
    assert found.cmd == pytest.approx(sum(width[i] * (gap[i] + gap[i + 1]) / 2 for i in steps))


def test_spread_and_intervals() -> None:
    found = example()
    assert found.per_pair.mean().item() == pytest.approx(found.faithfulness)
    low, high = found.interval("faithfulness")
    expected = 1.96 * found.per_pair.std().item() / 40**0.5
    assert low < found.faithfulness < high and (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert found.interval("completeness") == pytest.approx((1, 1)) and found.completeness == pytest.approx(1)
    assert found.random_faithfulness.tolist() == pytest.approx([0, 1])
    assert found.faithful and not CircuitFigures(**{**vars(found), "metadata": {"enough": 0.99}}).faithful
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))["figures"]
    assert list(said) == ["faithfulness", "completeness", "cpr", "cmd"] and said["cmd"]["value"] == found.cmd
    with pytest.raises(PrismaError, match="expected one of faithfulness, completeness, cpr, cmd; found 'cprr'"):
        found.interval("cprr")


def test_figures_of_a_planted_circuit() -> None:
    """Four of its edges are everything: every curve that holds them is at 1, and random circuits give less."""
    found = circuit_discovery(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, draws=20)
    assert found.curve_values is not None and found.curve_values.shape == (len(PROPORTIONS), 2)
    assert found.interval() == pytest.approx((1, 1)) and found.metadata["draws"] == 20
    assert (found.random_faithfulness < 0.9).float().mean() > 0.8 and len(found.random_faithfulness) == 20
    assert 0 < found.cmd < 0.5 < found.cpr < 1
    checked = check_circuit(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, INDUCTION, draws=0)
    assert checked.faithful and not len(checked.random_faithfulness) and "cpr" not in checked.to_dict()["figures"]
    with pytest.raises(PrismaError, match="expected one of faithfulness, completeness; found 'cpr'"):
        _ = checked.cpr
