"""The greedy order leads to the readout, and pruning keeps what matters."""

import torch

from prisma.analysis.circuits.circuit_search import Verifier, greedy_order, pruned
from prisma.analysis.circuits.graph import Graph
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
    assert set(graph.named(pruned(verifier, graph, graph.edges, scores, 0))) == set(INDUCTION)
    assert torch.equal(pruned(verifier, graph, graph.edges, scores, -1), graph.edges)


def test_shares_are_metrics_between_all_edges_and_none() -> None:
    model = model_of("base")
    verifier = Verifier(model, *pairs_of(model), metric, "corrupt", None)
    edges = Graph(model.config).edges
    torch.testing.assert_close(
        verifier.share(torch.stack([edges, edges & False])), torch.tensor([1.0, 0.0], dtype=torch.float64)
    )
    torch.testing.assert_close(verifier.measure(edges[None])[0], metric(model(pairs_of(model)[0])))
