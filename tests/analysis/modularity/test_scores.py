"""Q and n-cut: by their definition, by networkx, and of graphs whose scores are known."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from prisma.analysis.modularity.scores import n_cut, newman_q
from tests.analysis.modularity.nets import planted


def by_definition(a: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Both scores, by loops over pairs of nodes."""
    degrees, total = a.sum(1), a.sum()
    pairs = [(i, j) for i in range(len(a)) for j in range(len(a)) if labels[i] == labels[j] >= 0]
    q = sum(a[i, j] - degrees[i] * degrees[j] / total for i, j in pairs) / total
    cut = 0.0
    for c in set(labels[labels >= 0]):
        inside = labels == c
        cut += a[inside][:, ~inside].sum() / (a[inside].sum() + 1e-8)
    return q, cut


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_scores_are_those_of_their_definition(n: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    upper = np.triu(random.random((n, n)) * (random.random((n, n)) > 0.4), 1)
    upper[0, 1] += 0.1  # at least one edge
    a, labels = upper + upper.T, random.integers(0, k, n)
    labels[a.sum(1) == 0] = -1
    whole = sparse.csr_array(a)
    assert (newman_q(whole, labels), n_cut(whole, labels)) == pytest.approx(by_definition(a, labels), abs=1e-7)
    sets = [set(np.flatnonzero(labels == c)) for c in set(labels)]
    graph = nx.from_numpy_array(a)
    assert newman_q(whole, labels) == pytest.approx(nx.community.modularity(graph, sets), abs=1e-9)
    assert -0.5 <= newman_q(whole, labels) < 1


def test_scores_of_known_graphs() -> None:
    a = sparse.csr_array(planted((10, 10), weak=0.0))
    halves = np.repeat([0, 1], 10)
    assert newman_q(a, halves) == pytest.approx(0.5, abs=0.01) and n_cut(a, halves) == pytest.approx(0)
    assert newman_q(a, np.zeros(20, dtype=int)) == pytest.approx(0) and n_cut(
        a, np.zeros(20, dtype=int)
    ) == pytest.approx(0)
    bipartite = sparse.csr_array(np.kron([[0, 1], [1, 0]], np.ones((5, 5))))
    assert newman_q(bipartite, np.repeat([0, 1], 5)) == pytest.approx(-0.5)
    assert n_cut(bipartite, np.repeat([0, 1], 5)) == pytest.approx(2)
