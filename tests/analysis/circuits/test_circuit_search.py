"""The greedy order leads to the readout, and pruning keeps what matters."""

import re

import pytest
import torch

import prisma
from prisma import Logit, LogitDiff
from prisma.analysis.circuits.circuit_search import Verifier, greedy_order, is_faithful, pruned, random_circuits
from prisma.analysis.circuits.graph import Graph
from prisma.data import task
from tests.analysis.circuits.test_circuit_discovery import INDUCTION, INDUCTION_METRIC, INDUCTION_PAIRS
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.analysis.circuits.test_edge_attribution import metric
from tests.planted_circuits import induction
from tests.variants import config_of, model_of


def test_each_edge_leads_to_a_node_that_is_in() -> None:
    graph = Graph(config_of("base"))
    scores = torch.randn(graph.edges.shape, generator=torch.Generator().manual_seed(0)).double()
    order = greedy_order(graph, scores)
    assert len(order) == len(set(order)) == int(graph.edges.sum())
    inside = {None}
    for i, (sender, receiver) in enumerate(order):
        assert graph.writer(receiver) in inside
        choices = [
            abs(scores[s, v].item())
            for s, v in graph.edges.nonzero().tolist()
            if graph.writer(v) in inside and (s, v) not in order[:i]
        ]
        assert abs(scores[sender, receiver].item()) == max(choices)
        inside.add(sender)


def test_pruning_keeps_what_was_planted() -> None:
    graph = Graph(induction().config)
    verifier = Verifier(induction(), *INDUCTION_PAIRS, INDUCTION_METRIC, "corrupt", None)
    scores = torch.zeros(graph.edges.shape)  # no ranking at all
    assert set(graph.named(pruned(verifier, graph, graph.edges, scores, 0, 0.95))) == set(INDUCTION)
    assert torch.equal(pruned(verifier, graph, graph.edges, scores, -1, 0.95), graph.edges)


def test_pruning_does_not_leave_the_range_around_1() -> None:
    """With any tolerance at all: every removal that is made leaves |1 - faithfulness| <= 1 - enough."""
    model = prisma.load("mice/digits").model
    images, labels = task("digits").inputs("test")
    verifier = Verifier(model, images[labels == 3][:6], images[labels == 8][:6], LogitDiff(3, 8), "corrupt", None)
    graph = Graph(model.config)
    scores = torch.rand(graph.edges.shape, generator=torch.Generator().manual_seed(0))
    for enough in (0.7, 0.9):
        found = pruned(verifier, graph, graph.edges, scores, 9.0, enough)
        assert found.sum() < graph.edges.sum() and is_faithful(verifier.share(found[None]), enough)
    far = graph.mask([("embed", "m0"), ("m0", "m1"), ("m1", "logits"), ("embed", "logits")])
    before = (1 - verifier.share(far[None])).abs()
    assert before > 0.1 and (1 - verifier.share(pruned(verifier, graph, far, scores, 9.0, 0.9)[None])).abs() <= before


def test_overshoot_is_not_faithful() -> None:
    share = torch.tensor([0.94, 0.951, 1.0, 1.049, 1.06, 1.278])
    assert is_faithful(share, 0.95).tolist() == [False, True, True, True, False, False]
    assert is_faithful(torch.tensor([1 - 1e-12, 1 + 1e-12, 1 + 1e-6], dtype=torch.float64), 1.0).tolist() == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 5, 20, 75])
def test_random_circuits_have_the_size_and_no_dead_ends(size: int) -> None:
    graph = Graph(config_of("base"))
    found = random_circuits(graph, size, 8, seed=1)
    assert found.shape == (8, *graph.edges.shape) and torch.equal(found, random_circuits(graph, size, 8, seed=1))
    sizes = found.sum((1, 2))
    assert (sizes >= size).all() and (sizes <= size + 6).all() and (size > 0 or not sizes.any())
    assert all(torch.equal(graph.on_paths(one), one) and not (one & ~graph.edges).any() for one in found)
    assert size in (0, 75) or len({tuple(one.flatten().tolist()) for one in found}) > 1


def test_pairs_that_do_not_agree_are_warned_of() -> None:
    """Threes against fours by the logit of six: its mean difference is far below its spread over pairs."""
    model = prisma.load("mice/digits").model
    images, labels = task("digits").inputs("test")
    threes, fours = images[labels == 3], images[labels == 4]
    difference = Logit(6)(model(threes[:36])) - Logit(6)(model(fours[:36]))
    mean, spread = difference.mean().item(), difference.std().item()
    assert abs(mean) < spread / 2
    said = re.escape(f"found a mean of {mean:.2g} with a spread of {spread:.2g} over pairs: faithfulness")
    with pytest.warns(UserWarning, match=said):
        verifier = Verifier(model, threes[:36], fours[:36], Logit(6), "corrupt", None)
    assert verifier.signal == pytest.approx((difference.mean().abs() / difference.std()).item(), rel=1e-4)
    assert Verifier(model, threes[:8], fours[:8], LogitDiff(3, 4), "corrupt", None).signal > 2
    assert Verifier(model, threes[:1], fours[:1], Logit(6), "corrupt", None).signal is None


@pytest.mark.filterwarnings("ignore:expected pairs that agree")
def test_shares_are_metrics_between_all_edges_and_none() -> None:
    model = model_of("base")
    verifier = Verifier(model, *pairs_of(model), metric, "corrupt", None)
    edges = Graph(model.config).edges
    torch.testing.assert_close(
        verifier.share(torch.stack([edges, edges & False])), torch.tensor([1.0, 0.0], dtype=torch.float64)
    )
    torch.testing.assert_close(verifier.measure(edges[None])[0], metric(model(pairs_of(model)[0])))
