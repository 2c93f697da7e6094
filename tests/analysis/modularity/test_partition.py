"""Partitions: planted communities are found, as scikit-learn and networkx find them, and isolated nodes are in none."""

import networkx as nx
import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import spectral_clustering
from sklearn.metrics import adjusted_rand_score

from prisma.analysis.modularity.partition import PARTITIONS, embedding, partition
from prisma.errors import PrismaError
from tests.analysis.modularity.nets import planted

SIZES = (30, 20, 10)
TRUTH = np.repeat([0, 1, 2], SIZES)


@pytest.mark.parametrize("how", PARTITIONS)
@pytest.mark.parametrize("weak", [0.0, 0.05])
def test_planted_communities_are_found_and_their_number_too(how: str, weak: float) -> None:
    graph = sparse.csr_array(planted(SIZES, weak=weak))
    assert partition(graph, how=how).tolist() == TRUTH.tolist()  # the largest is 0
    if how != "louvain":
        assert partition(graph, 3, how).tolist() == TRUTH.tolist()
        assert set(partition(graph, 5, how)) == set(range(5))


@pytest.mark.parametrize("n", [60, 300])
def test_spectral_is_that_of_scikit_learn(n: int) -> None:
    a = planted((n // 2, n // 3, n - n // 2 - n // 3), weak=0.4)
    theirs = spectral_clustering(a, n_clusters=3, random_state=0)
    assert adjusted_rand_score(partition(sparse.csr_array(a), 3), theirs) == 1


@pytest.mark.parametrize("n", [60, 300])
def test_the_embedding_solves_the_eigenproblem_also_of_a_graph_in_parts(n: int) -> None:
    a = planted((n // 3, n - n // 3), weak=0.0)
    points, parts = embedding(sparse.csr_array(a), 4, 0)
    degree = a.sum(1)
    assert parts == 2 and points.shape == (n, 4)
    vectors = points * np.sqrt(degree)[:, None]
    scaled = a / np.sqrt(np.outer(degree, degree))
    values = np.sort(np.linalg.eigvalsh(scaled))[::-1][:4]
    assert np.allclose(vectors.T @ scaled @ vectors, np.diag(values), atol=1e-6)
    assert embedding(sparse.csr_array(a), 1, 0)[0].shape == (n, 2)  # which part a node is in is always there


def test_networkx_gives_the_communities_of_louvain_and_greedy() -> None:
    a = planted(SIZES, weak=0.4)
    graph = nx.from_numpy_array(a)
    theirs = nx.community.louvain_communities(graph, seed=3)
    labels = partition(sparse.csr_array(a), how="louvain", seed=3)
    assert {frozenset(np.flatnonzero(labels == c).tolist()) for c in set(labels)} == {frozenset(s) for s in theirs}
    theirs = nx.community.greedy_modularity_communities(graph, weight="weight")
    labels = partition(sparse.csr_array(a), how="greedy")
    assert {frozenset(np.flatnonzero(labels == c).tolist()) for c in set(labels)} == set(theirs)


@pytest.mark.parametrize("how", PARTITIONS)
def test_isolated_nodes_are_in_no_community_and_change_nothing(how: str) -> None:
    a = np.zeros((64, 64))
    others = np.setdiff1d(np.arange(64), [0, 17, 40, 63])
    a[np.ix_(others, others)] = planted(SIZES)
    labels = partition(sparse.csr_array(a), how=how)
    assert labels[[0, 17, 40, 63]].tolist() == [-1] * 4 and labels[others].tolist() == TRUTH.tolist()


def test_one_edge_and_one_community() -> None:
    pair = sparse.csr_array(np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]]))
    assert partition(pair).tolist() == [0, 0, -1]
    assert set(partition(sparse.csr_array(planted(SIZES)), 1)) == {0}


@pytest.mark.parametrize(
    ("k", "how", "message"),
    [
        (None, "leiden", "expected partition to be one of spectral, louvain, greedy; found 'leiden'"),
        (0, "spectral", "expected k from 1 to below 60, the number of nodes with edges; found 0"),
        (60, "greedy", "expected k from 1 to below 60, the number of nodes with edges; found 60"),
        (3, "louvain", "expected no k with louvain, which chooses the number of communities; found k=3"),
    ],
)
def test_what_cannot_be_is_one_sentence(k: int | None, how: str, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        partition(sparse.csr_array(planted(SIZES)), k, how)


def test_a_graph_without_edges_is_one_sentence() -> None:
    with pytest.raises(PrismaError, match="expected a graph with edges; found none between its 4 nodes"):
        partition(sparse.csr_array((4, 4)))
