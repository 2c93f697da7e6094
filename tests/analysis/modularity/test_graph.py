"""Graphs of units in layers: the matrix, the nodes, and what is no graph."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from prisma.analysis.modularity.graph import Edges, Graph, as_graph, cells_of, joined, layer_counts, symmetric
from prisma.errors import PrismaError
from tests.analysis.modularity.nets import planted


def test_the_adjacency_has_every_edge_from_both_ends() -> None:
    first, second = np.array([[1.0, 2.0, 0.0]]), np.array([[3.0], [0.0], [4.0]])
    graph = joined({"a": 1, "b": 3, "c": 1}, {("a", "b"): first, ("b", "c"): second})
    expected = np.zeros((5, 5))
    expected[0, 1:4], expected[1:4, 4] = first[0], second[:, 0]
    assert np.array_equal(graph.adjacency.toarray(), expected + expected.T)
    assert (graph.n_nodes, graph.n_edges, graph.zeros) == (5, 4, 1 - 4 / 6)
    assert graph.layer.tolist() == [0, 1, 1, 1, 2] and graph.starts.tolist() == [0, 1, 4, 5]
    assert [cells_of(edges) for edges in graph.edges] == [3, 3]


@pytest.mark.parametrize("kind", [np.asarray, sparse.coo_matrix, sparse.csr_array, torch.as_tensor])
@pytest.mark.parametrize("layers", [None, {"a": 25, "b": 35}])
def test_a_matrix_of_ones_own_is_the_graph_of_it_without_the_diagonal(kind: type, layers: dict[str, int]) -> None:
    weights = planted()
    graph = Graph.of(kind(weights + 3 * np.eye(60)), layers)
    assert np.allclose(graph.adjacency.toarray(), weights)
    assert sum(cells_of(edges) for edges in graph.edges) == 60 * 59 // 2
    assert as_graph(graph) is graph


def test_a_graph_without_edges_is_one() -> None:
    graph = Graph.of(np.zeros((3, 3)))
    assert (graph.n_nodes, graph.n_edges, graph.zeros, graph.adjacency.nnz) == (3, 0, 0.0, 0)


@pytest.mark.parametrize(
    ("matrix", "layers", "message"),
    [
        (np.ones((2, 3)), None, r"expected a square matrix of weights; found one of shape \[2, 3\]"),
        (np.ones(3), None, r"expected a square matrix of weights; found one of shape \[3\]"),
        (np.triu(np.ones((3, 3))), None, "expected a symmetric matrix, because edges have no direction"),
        (-np.ones((3, 3)), None, "expected weights of edges that are finite and 0 or more; found -1"),
        (np.full((3, 3), np.nan), None, "finite and 0 or more; found nan"),
        (np.full((3, 3), np.inf), None, "finite and 0 or more; found inf"),
        ([["a"]], None, "expected a matrix of weights; found"),
        (np.ones((3, 3)), {"a": 2}, "expected layers of 3 nodes in all; found 2"),
    ],
)
def test_what_is_no_graph_is_one_sentence(matrix: object, layers: dict[str, int] | None, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        Graph.of(matrix, layers)


def test_a_network_in_the_place_of_its_graph_is_one_sentence() -> None:
    with pytest.raises(PrismaError, match=r"found a torch.Linear: use weight_graph\(module\)"):
        as_graph(nn.Linear(2, 2))
    with pytest.raises(PrismaError, match="expected a graph, or its matrix of weights; found a list"):
        as_graph([1])


def test_edges_that_are_none() -> None:
    with pytest.raises(PrismaError, match=r"expected weights of edges \[2, 3\]; found \[3, 2\]"):
        joined({"a": 2, "b": 3}, {("a", "b"): np.ones((3, 2))})
    graph = joined({"a": 1, "b": 1}, {("a", "b"): np.ones((1, 1))})
    with pytest.raises(PrismaError, match="expected the edges between two layers once; found them twice"):
        Graph(graph.layers, (*graph.edges, Edges(1, 0, graph.edges[0].weight)))


def test_edges_have_no_direction() -> None:
    there, back = np.array([[1.0, 2.0]]), np.array([[4.0], [8.0]])
    graph = joined({"a": 1, "b": 2}, {("b", "a"): back, ("a", "b"): there, ("b", "b"): np.array([[7.0, 1], [2, 7]])})
    assert graph.adjacency.toarray().tolist() == [[0, 5, 10], [5, 0, 3], [10, 3, 0]]


def test_counts_and_symmetric_matrices() -> None:
    graph = joined({"a": 2, "b": 3}, {("a", "b"): np.ones((2, 3))})
    assert layer_counts(graph, np.array([0, 1, 1, 1, -1]), 2).tolist() == [[1, 1], [0, 2]]
    found = symmetric(np.array([0]), np.array([2]), np.array([0.5]), 3).toarray()
    assert found.tolist() == [[0, 0, 0.5], [0, 0, 0], [0.5, 0, 0]]
