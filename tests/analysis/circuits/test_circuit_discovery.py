"""Planted circuits are found exactly, by path patching and by discovery; figures of a circuit are those of its runs."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma import Logit, LogitDiff, PrismaError
from prisma.analysis.circuits.attribution_patching import attribute_nodes_and_edges
from prisma.analysis.circuits.branches import messages
from prisma.analysis.circuits.circuit_discovery import CircuitDiscovery, check_circuit, circuit_discovery
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.circuits.head_graph import head_graph
from prisma.analysis.circuits.path_patching import path_patching
from prisma.data import task
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.analysis.circuits.test_edge_attribution import metric
from tests.planted_circuits import copy_head, images, induction
from tests.variants import WITH_LAYERS, model_of

COPY_PAIRS = images([1, 2, 3, 1, 2], [1, 1, 1, 0, 2]), images([0, 2, 3, 0, 2], [3, 3, 2, 0, 2])
COPY_METRIC = LogitDiff([1, 1], [0, 3])
COPY = [("embed", "a0.h1.v"), ("a0.h1", "logits")]
INDUCTION_PAIRS = images([1, 0, 2, 3, 1], [3, 1, 0, 2, 1]), images([0, 3, 1, 2, 1], [2, 1, 3, 0, 1])
INDUCTION_METRIC = LogitDiff([2, 2], [3, 1])
INDUCTION = [("embed", "a0.h1.v"), ("embed", "a1.h2.v"), ("a0.h1", "a1.h2.k"), ("a1.h2", "logits")]


def test_the_planted_models_do_what_they_were_planted_for() -> None:
    assert torch.equal(copy_head()(COPY_PAIRS[0]).argmax(-1), torch.tensor([1, 1]))
    assert torch.equal(induction()(INDUCTION_PAIRS[0]).argmax(-1), torch.tensor([2, 2]))  # what stands after glyph 0
    assert torch.equal(induction()(INDUCTION_PAIRS[1]).argmax(-1), torch.tensor([3, 1]))


def test_path_patching_finds_a_copy_head() -> None:
    found = path_patching(copy_head(), *COPY_PAIRS, COPY_METRIC)
    changed = ((found.effect - found.clean.mean()).abs() > 1e-12).nonzero().tolist()
    named = {(found.metadata["senders"][s], found.metadata["receivers"][v]) for s, v in changed}
    assert named == set(COPY)


@pytest.mark.parametrize("into", ["clean", "corrupt"])
def test_path_patching_finds_an_induction_pair_through_its_keys(into: str) -> None:
    found = head_graph(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, into=into)
    changed = (found.effect - getattr(found, into).mean()).abs() > 1e-12
    assert changed.nonzero().tolist() == [[1, 0, 1, 1, 2]]  # k, of a1.h2, which hears a0.h1


@pytest.mark.parametrize("options", [{}, {"n": 13}, {"threshold": 1e-6}, {"steps": 1}, {"enough": 1.0}])
def test_discovery_finds_exactly_what_was_planted(options: dict[str, float]) -> None:
    copied = circuit_discovery(copy_head(), *COPY_PAIRS, COPY_METRIC, **options)
    assert set(copied.named()) == set(COPY)
    pair = circuit_discovery(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, **options)
    assert set(pair.named()) == set(INDUCTION)
    for found in (copied, pair):
        assert found.faithfulness == pytest.approx(1) and found.completeness == pytest.approx(1)
        assert (found.removal[found.edges] > 0.4).all() and not found.removal[~found.edges].any()
    assert pair.nodes() == ["embed", "a0.h1", "a1.h2", "logits"]


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_other_ablations_verify_a_circuit_too(ablation: str) -> None:
    clean, corrupt = COPY_PAIRS
    found = circuit_discovery(copy_head(), clean, corrupt, COPY_METRIC, ablation=ablation, n=2)
    assert set(found.named()) == set(COPY) and found.faithfulness == pytest.approx(1)
    assert found.ablated.allclose(COPY_METRIC(torch.zeros(2, 4, dtype=torch.float64))) == (ablation == "zero")


@pytest.mark.filterwarnings("ignore:expected pairs that agree")
@pytest.mark.parametrize("variant", ["base", "norm_post", "divided", "parallel", "one_layer"])
@torch.no_grad()
def test_figures_are_those_of_single_runs(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model)
    found = circuit_discovery(model, clean, corrupt, metric, n=12, tolerance=0.1, sizes=[1, 12, 16])
    graph, other = Graph(model.config), messages(model, corrupt)[1]

    def share(edges: torch.Tensor) -> float:
        value = metric(run_edges(model, clean, edges, other)).mean()
        whole, nothing = metric(model(clean)).mean(), metric(model(corrupt)).mean()
        return ((value - nothing) / (whole - nothing)).item()

    assert found.faithfulness == pytest.approx(share(found.edges), abs=1e-9)
    assert found.completeness == pytest.approx(1 - share(graph.edges & ~found.edges), abs=1e-9)
    for s, v in found.edges.nonzero().tolist():
        without = found.edges.clone()
        without[s, v] = False
        assert found.removal[s, v].item() == pytest.approx(found.faithfulness - share(without), abs=1e-9)
    assert torch.equal(graph.on_paths(found.edges), found.edges)
    assert found.faithfulness_curve is not None and found.sizes is not None
    whole = circuit_discovery(model, clean, corrupt, metric, n=12, tolerance=-1, sizes=[12])
    assert found.faithfulness_curve[1].item() == pytest.approx(share(whole.edges), abs=1e-9)
    assert abs(found.faithfulness - whole.faithfulness) <= 0.1 and found.edges.sum() <= whole.edges.sum()


@pytest.mark.filterwarnings("ignore:expected pairs that agree")
@pytest.mark.parametrize("variant", WITH_LAYERS)
def test_with_all_edges_nothing_is_lost(variant: str) -> None:
    model = model_of(variant)
    n = int(Graph(model.config).edges.sum())
    found = circuit_discovery(model, *pairs_of(model), metric, sizes=[1], n=n, tolerance=-1, steps=1)
    assert torch.equal(found.edges, Graph(model.config).edges)
    assert found.faithfulness == pytest.approx(1, abs=1e-9) and found.completeness == pytest.approx(1, abs=1e-9)


def test_a_circuit_of_ones_own_is_checked() -> None:
    found = check_circuit(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, INDUCTION[1:])
    assert found.named() == INDUCTION[1:] and 0 < found.faithfulness < 0.6
    nothing = check_circuit(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, [])
    assert nothing.faithfulness == 0 and nothing.completeness == 0 and nothing.plot().axes
    with pytest.raises(PrismaError, match="no receiver"):
        check_circuit(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, [("embed", "m0")])


def test_a_circuit_that_overshoots_is_not_accepted() -> None:
    """Threes against fours by the logit of six, where few edges give more than twice the whole effect."""
    model = prisma.load("mice/digits").model
    images, labels = task("digits").inputs("test")
    pairs = images[labels == 3][:10], images[labels == 4][:10]
    with pytest.warns(UserWarning, match="faithfulness is a ratio"):
        found = circuit_discovery(model, *pairs, Logit(6), tolerance=0.1)
    assert found.faithfulness_curve is not None and found.faithfulness_curve.max() > 2
    assert abs(1 - found.faithfulness) <= 0.05 and found.faithful
    assert found.metadata["total_to_spread"] < 1
    low, high = found.interval()
    assert high - low > 1  # what these pairs say is next to nothing


def test_the_circuit_of_a_trained_mouse() -> None:
    model = prisma.load("mice/digits").model
    x, y = task("digits").inputs("test", 9)
    differ = y[:-1] != y[1:]
    pairs, metric = (x[:-1][differ], x[1:][differ]), LogitDiff(y[:-1][differ], y[1:][differ])
    found = circuit_discovery(model, *pairs, metric, enough=0.8, tolerance=0.02, sizes=[16, 32, 64])
    assert 0.75 < found.faithfulness < 1.1 and found.completeness > 0.9
    assert 10 < len(found.named()) < 70 < int(Graph(model.config).edges.sum())
    _, edges = attribute_nodes_and_edges(model, *pairs, metric, steps=5)
    torch.testing.assert_close(found.scores, edges.effect)


def test_results_are_saved_and_drawn(tmp_path: Path) -> None:
    found = circuit_discovery(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC)
    again = CircuitDiscovery.from_npz(found.to_npz(tmp_path / "circuit.npz"))
    assert again.named() == found.named() and again.faithfulness == found.faithfulness
    assert again.plot().axes and again.plot("faithfulness_curve").axes
    said = found.to_dict()
    assert said["nodes"] == ["embed", "a0.h1", "a1.h2", "logits"] and said["arrays"]["sizes"]["axes"] == ["size"]
    assert {(edge["sender"], edge["receiver"]) for edge in said["edges"]} == set(INDUCTION)
    checked = check_circuit(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, INDUCTION)
    assert CircuitDiscovery.from_npz(checked.to_npz(tmp_path / "checked.npz")).sizes is None


@pytest.mark.filterwarnings("ignore:expected pairs that agree")
def test_bad_input_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model)
    with pytest.raises(PrismaError, match="runs that differ in the metric"):
        circuit_discovery(model, clean, clean, metric)
    with pytest.raises(PrismaError, match="pairs of one shape"):
        circuit_discovery(model, clean, corrupt[:1], metric)
    with pytest.raises(PrismaError, match=r"n=3 and threshold=0\.1"):
        circuit_discovery(model, clean, corrupt, metric, n=3, threshold=0.1)
    with pytest.raises(PrismaError, match="1 to 75 edges for a circuit of this model; found 0"):
        circuit_discovery(model, clean, corrupt, metric, n=0)
    with pytest.raises(PrismaError, match="1 to 75 edges for a circuit of this model; found 1000"):
        circuit_discovery(model, clean, corrupt, metric, sizes=[1000])
    with pytest.raises(PrismaError, match="1 to 75 edges for a circuit of this model; found 0"):
        circuit_discovery(model, clean, corrupt, metric, sizes=[])
    with pytest.raises(PrismaError, match="one of corrupt, mean, zero; found 'noise'"):
        circuit_discovery(model, clean, corrupt, metric, ablation="noise")
    with pytest.raises(PrismaError, match="expected enough from 0 to 1 and draws of at least 0; found enough=2"):
        circuit_discovery(model, clean, corrupt, metric, enough=2)
    with pytest.raises(PrismaError, match=r"found enough=0\.95 and draws=-1"):
        check_circuit(model, clean, corrupt, metric, [], draws=-1)
    with pytest.raises(PrismaError, match="found KL, with a gradient of zero for 3 of 3 images"):
        circuit_discovery(model, clean, corrupt, prisma.KL(model(clean).detach()), steps=1)
    with pytest.raises(PrismaError, match="a metric that has a gradient"):
        circuit_discovery(model, clean, corrupt, prisma.metrics.Rank(0))
