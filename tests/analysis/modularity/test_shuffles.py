"""Shuffled graphs: the same weights between the same layers, in other places."""

import numpy as np
import pytest
from torch import nn

from prisma.analysis.modularity.graph import Graph, joined
from prisma.analysis.modularity.network_graph import network_graph
from prisma.analysis.modularity.shuffles import kind_of_shuffle, shuffled
from prisma.errors import PrismaError
from tests.analysis.modularity.nets import planted


def layered(zeros: float) -> Graph:
    random = np.random.default_rng(0)
    weights = [random.random(shape) * (random.random(shape) >= zeros) for shape in ((6, 5), (5, 4))]
    return joined({"a": 6, "b": 5, "c": 4}, {("a", "b"): weights[0], ("b", "c"): weights[1]})


def within(found: np.ndarray, graph: Graph) -> list[np.ndarray]:
    parts = [slice(a, b) for a, b in zip(graph.starts, graph.starts[1:], strict=False)]
    return [found[parts[e.source], parts[e.target]] for e in graph.edges]


@pytest.mark.parametrize("zeros", [0.0, 0.6])
@pytest.mark.parametrize("shuffle", ["all", "nonzero"])
def test_every_pair_of_layers_keeps_its_weights(zeros: float, shuffle: str) -> None:
    graph = layered(zeros)
    own = graph.adjacency.toarray()
    drawn = [x.toarray() for x in shuffled(graph, 30, shuffle, 0)]
    for found in drawn:
        assert np.array_equal(found, found.T) and not np.array_equal(found, own)
        for block, edges in zip(within(found, graph), graph.edges, strict=True):
            assert np.array_equal(np.sort(block[block > 0]), np.sort(edges.weight.data))
        assert found.sum() == pytest.approx(own.sum())
        if shuffle == "nonzero":
            assert np.array_equal(found > 0, own > 0)
    assert len({x.tobytes() for x in drawn}) == 30
    reached = np.sum(drawn, 0) > 0
    assert all(block.all() for block in within(reached, graph)) or shuffle == "nonzero"
    again = [x.toarray() for x in shuffled(graph, 2, shuffle, 0)]
    assert np.array_equal(again[1], drawn[1])


def test_within_one_layer_every_pair_may_be_drawn_and_no_node_is_its_own_neighbour() -> None:
    graph = Graph.of(planted((5, 4), weak=0.0))
    total = np.zeros((9, 9))
    for found in shuffled(graph, 60, "all", 1):
        assert found.nnz == 2 * graph.n_edges and not found.diagonal().any()
        total += found.toarray() > 0
    assert (total[~np.eye(9, dtype=bool)] > 0).all()


def test_a_large_layer_numbers_its_pairs_right() -> None:
    n = 3000
    rows, columns = np.triu_indices(n, 1)
    weights = np.zeros((n, n))
    some = np.random.default_rng(0).choice(len(rows), 2000, replace=False)
    weights[rows[some], columns[some]] = 1
    (found,) = shuffled(Graph.of(weights + weights.T), 1, "all", 0)
    assert found.nnz == 4000 and not found.diagonal().any()


def test_zeros_of_the_architecture_stay_where_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 3, 1))
    graph = network_graph(network)
    assert [edges.fixed for edges in graph.edges] == [False, True, False] and graph.zeros == 0
    weights = np.random.default_rng(0).random((2, 3)) * [[0, 1, 1], [1, 0, 1]]
    mixed = joined({"a": 3, "b": 3, "c": 2}, {("a", "b"): np.eye(3), ("c", "b"): weights}, {("b", "a")})
    drawn = [x.toarray() for x in shuffled(mixed, 20, "all", 0)]
    assert all(np.array_equal(within(x, mixed)[0], np.eye(3)) for x in drawn)
    assert (np.sum(drawn, 0)[3:6, 6:] > 0).all()


def test_what_suits_a_graph() -> None:
    graph = layered(0.5)
    assert kind_of_shuffle(graph, None) == "all"
    assert kind_of_shuffle(Graph(graph.layers, graph.edges, pruned=True), None) == "nonzero"
    assert kind_of_shuffle(graph, "nonzero") == "nonzero"
    with pytest.raises(PrismaError, match="expected shuffle to be all or nonzero; found 'some'"):
        kind_of_shuffle(graph, "some")
