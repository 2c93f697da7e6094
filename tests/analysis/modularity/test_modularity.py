"""Modularity: the two-block proof, the published figures, the null, and results."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from prisma.analysis.modularity.graph import Graph
from prisma.analysis.modularity.modularity import Modularity, agreement, modularity
from prisma.analysis.modularity.partition import partition
from prisma.analysis.modularity.scores import newman_q
from prisma.analysis.modularity.weight_graph import weight_graph
from prisma.errors import PrismaError
from tests.analysis.modularity.nets import mlp, planted, published, two_blocks


def q_of(network: nn.Module, k: int) -> float:
    adjacency = weight_graph(network).adjacency
    return newman_q(adjacency, partition(adjacency, k))


def test_two_blocks_have_a_q_of_one_half_at_two_communities_and_less_at_eight() -> None:
    graph = weight_graph(two_blocks(64, 32, 10))
    found = modularity(graph, 2, 20, shuffle="all")
    assert found.q == pytest.approx(0.4999, abs=2e-4) and found.n_cut == pytest.approx(0, abs=1e-9)
    assert found.z > 50 and found.n_cut_z < -50 and found.p == found.n_cut_p == 1 / 21
    side = torch.cat([torch.arange(2).repeat_interleave(n) for n in (64, 32, 10)])
    assert agreement(found.labels, side) == 1
    louvain = modularity(graph, null=2, partition="louvain")
    assert louvain.q == pytest.approx(0.4999, abs=2e-4) and louvain.counts.shape == (3, 2)
    at_eight = modularity(graph, 8, 10, shuffle="all")
    assert at_eight.q < 0.35 and at_eight.z > 10


def test_a_dense_random_network_is_like_its_shuffles() -> None:
    found = modularity(weight_graph(mlp(64, 32, 10)), 2, 30)
    assert 0 < found.q < 0.12 and abs(found.z) < 3 and found.p > 0.05


def test_published_figures() -> None:
    """toumei's, at eight communities: .305 engineered, .263 with cross weights trained, .0788 and .116 of one half."""
    q = {name: q_of(network, 8) for name, network in published().items()}
    assert q["engineered"] == pytest.approx(0.305, abs=0.04)
    assert q["cross weights trained"] == pytest.approx(0.263, abs=0.06)
    assert q["untrained"] == pytest.approx(0.0788, abs=0.03)
    assert q["trained"] == pytest.approx(0.116, abs=0.04)
    assert q["untrained"] < q["trained"] < min(q["cross weights trained"], q["engineered"])
    at_two = {name: q_of(network, 2) for name, network in published().items()}
    assert at_two["engineered"] > 0.47, "the low figure is that of eight communities"
    assert at_two["engineered"] > at_two["cross weights trained"] > 0.3


@pytest.mark.parametrize("masked", [True, False])
def test_zeros_of_a_pruned_network_do_not_count_as_modular(masked: bool) -> None:
    network = two_blocks(16, 12, 8)
    if masked:  # else by hand: the zeros alone
        for part in network:
            if isinstance(part, nn.Linear):
                prune.custom_from_mask(part, "weight", part.weight != 0)
    graph = weight_graph(network)
    found = modularity(graph, 2, 20)
    assert graph.pruned and found.metadata["shuffle"] == "nonzero"
    assert found.q == pytest.approx(0.5, abs=0.01) and found.p > 0.05
    assert "50% of the weights are exactly 0, and stay so in shuffled graphs: shuffle=all" in found.report()
    everywhere = modularity(graph, 2, 20, shuffle="all")
    assert everywhere.z > 10 and "50% of the weights are exactly 0: shuffle=nonzero" in everywhere.report()


def test_z_and_p_are_those_of_their_definition() -> None:
    found = modularity(planted((12, 8)), None, 9, seed=1)
    null, cut = found.shuffled
    assert found.z == pytest.approx((found.q - null.mean().item()) / null.std().item())
    assert found.p == (int((null >= found.q).sum()) + 1) / 10
    assert found.n_cut_z == pytest.approx((found.n_cut - cut.mean().item()) / cut.std().item())
    some = replace(found, shuffled=torch.tensor([[0.9, 0.1, found.q], [0.0, 1e3, found.n_cut]], dtype=torch.float64))
    assert (some.p, some.n_cut_p) == (3 / 4, 3 / 4)


def test_weights_that_are_all_alike_have_no_spread() -> None:
    found = modularity(np.ones((6, 6)), 2, 3)
    assert np.isnan(found.z) and found.p == 1


def test_isolated_nodes_are_said_and_in_no_community() -> None:
    weights = np.zeros((22, 22))
    weights[1:21, 1:21] = planted((12, 8))
    found = modularity(Graph.of(weights, {"a": 2, "b": 20}), 2, 4)
    assert found.labels[[0, 21]].tolist() == [-1, -1] and found.counts.sum().item() == 20
    assert found.metadata["isolated"] == 2
    assert "2 of 22 units have no edges and are in no community" in found.report()


def test_a_result_is_saved_drawn_and_read(tmp_path: Path) -> None:
    found = modularity(weight_graph(two_blocks(8, 6, 4)), 2, 5)
    again = Modularity.from_npz(found.to_npz(tmp_path / "found.npz"))
    assert (again.q, again.z, again.p) == (found.q, found.z, found.p) and torch.equal(again.labels, found.labels)
    assert found.names["layer"] == ["input_1", "0", "2"]
    assert [panel.get_xlabel() for panel in found.plot().axes] == ["Q", "share of the layer's units, by community"]
    assert found.plot("counts").axes
    assert "Q = 0.49" in found.report() and "2 communities (spectral) of 18, 18 units" in found.report()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null": 1}, "expected null to be at least 2, the number of shuffled graphs; found 1"),
        ({"k": 100}, "expected k from 1 to below 20"),
        ({"partition": "best"}, "expected partition to be one of spectral, louvain, greedy; found 'best'"),
        ({"shuffle": "some"}, "expected shuffle to be all or nonzero; found 'some'"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        modularity(planted((12, 8)), **options)  # type: ignore[arg-type]


def test_agreement_is_one_for_the_same_and_about_zero_by_chance() -> None:
    labels = np.arange(300) % 3
    assert agreement(labels, 2 - labels) == 1
    assert abs(agreement(labels, np.random.default_rng(0).permutation(labels))) < 0.05
    assert agreement([0, 0, 1, 1, -1], [1, 1, 0, 0, 0]) == 1
    with pytest.raises(PrismaError, match=r"expected two partitions of the same nodes; found \[2\] and \[3\]"):
        agreement([0, 1], [0, 1, 2])
    for one, other in (([], []), ([-1, -1], [0, 1]), ([-1, 0], [0, -1])):
        with pytest.raises(PrismaError, match="in a community of both partitions; found none of"):
            agreement(one, other)


def test_a_tenth_of_zeros_is_learnt_and_more_is_pruned() -> None:
    network = mlp(10, 10, 10)
    for layer in (network[0], network[2]):
        with torch.no_grad():
            layer.weight[0, :] = 0  # a tenth
    assert not weight_graph(network).pruned
    with torch.no_grad():
        network[0].weight[1, 0] = 0
    assert weight_graph(network).pruned
    sparse = np.zeros((20, 20))
    sparse[:10, :10] = sparse[10:, 10:] = 1 - np.eye(10)
    found = modularity(sparse, 2, 9)
    assert found.metadata["shuffle"] == "all" and found.z > 5, "a graph of one's own is about its places"


def test_where_the_number_is_chosen_the_n_cut_is_compared_at_the_same_number() -> None:
    graph = Graph.of(planted((12, 8, 6)))
    found = modularity(graph, null=6)
    given = modularity(graph, found.counts.shape[1], 6)
    assert torch.equal(found.shuffled[1], given.shuffled[1])
    assert (found.shuffled[0] >= given.shuffled[0] - 1e-12).all()
