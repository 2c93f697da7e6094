"""Partitions of a graph into communities: spectral (normalised cuts), Louvain, and greedy.

A node without edges says nothing about where it belongs: it is in no community (-1).

The embedding of spectral clustering is that of the normalised Laplacian (Ng, Jordan and Weiss 2001; Shi and Malik
2000): the eigenvectors of D^-1/2 A D^-1/2 with the largest eigenvalues, over the roots of the degrees. Those with
eigenvalue 1 are the indicators of the graph's connected parts, so they are written down, and the others are found
beside them: a Lanczos iteration may miss copies of one eigenvalue.

Sources: Newman cond-mat/0309508 and Clauset, Newman and Moore cond-mat/0408187 (greedy); Blondel et al. 0803.0476.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from prisma.analysis.modularity.scores import newman_q
from prisma.errors import PrismaError, expect_packages

if TYPE_CHECKING:
    from scipy import sparse

MOST_CHOSEN = 8  # communities that are tried where the number is not given
_STARTS = 10  # of k-means
_SMALL = 200  # nodes, with which all eigenvectors are found faster than some


def spectral(adjacency: "sparse.csr_array", k: int | None, seed: int) -> np.ndarray:
    """k communities by k-means on the spectral embedding; without k, the number from 2 to 8 with the largest Q."""
    n = adjacency.shape[0]
    ks = range(2, min(MOST_CHOSEN, n - 1) + 1) if k is None else [k]
    points, parts = embedding(adjacency, max(ks, default=1), seed)
    found = [_k_means(points[:, : max(k, parts)], k, seed) for k in ks] or [np.zeros(n, dtype=np.int64)]
    return max(found, key=lambda labels: newman_q(adjacency, labels))


def louvain(adjacency: "sparse.csr_array", k: int | None, seed: int) -> np.ndarray:
    """The communities that Louvain's method finds, by networkx. It chooses their number."""
    import networkx as nx

    sets = nx.community.louvain_communities(nx.from_scipy_sparse_array(adjacency), seed=seed % 2**32)
    return _labels(sets, adjacency.shape[0])


def greedy(adjacency: "sparse.csr_array", k: int | None, seed: int) -> np.ndarray:
    """Communities that are merged, two at a time, while Q grows (or until k are left), by networkx."""
    import networkx as nx

    graph = nx.from_scipy_sparse_array(adjacency)
    count = {} if k is None else {"cutoff": k, "best_n": k}
    return _labels(nx.community.greedy_modularity_communities(graph, weight="weight", **count), adjacency.shape[0])


PARTITIONS: Mapping[str, Callable[["sparse.csr_array", int | None, int], np.ndarray]] = {
    "spectral": spectral,
    "louvain": louvain,
    "greedy": greedy,
}
"""By name -> adjacency of nodes with edges, k, seed -> the community of each node."""


def partition(adjacency: "sparse.csr_array", k: int | None = None, how: str = "spectral", seed: int = 0) -> np.ndarray:
    """The community of each node, from 0, the largest first; -1 for a node without edges.

    Args:
        adjacency: [node, node], symmetric, 0 or more.
        k: how many communities; by default their number is chosen, so that Q is large.
        how: spectral, louvain or greedy.

    Raises:
        PrismaError: no edges, `how` is unknown, more communities than nodes with edges, k for louvain, or scikit-learn
            or networkx is missing.
    """
    if how not in PARTITIONS:
        raise PrismaError(f"expected partition to be one of {', '.join(PARTITIONS)}; found {how!r}")
    expect_packages("sklearn" if how == "spectral" else "networkx", extra="analysis")
    if how == "louvain" and k is not None:
        raise PrismaError(f"expected no k with louvain, which chooses the number of communities; found k={k}")
    connected = np.flatnonzero(adjacency.sum(1) > 0)
    if not len(connected):
        raise PrismaError(f"expected a graph with edges; found none between its {adjacency.shape[0]} nodes")
    if k is not None and not 1 <= k < len(connected):
        raise PrismaError(f"expected k from 1 to below {len(connected)}, the number of nodes with edges; found {k}")
    own = PARTITIONS[how](adjacency[connected][:, connected], k, seed)
    _, own, sizes = np.unique(own, return_inverse=True, return_counts=True)
    place = np.empty(len(sizes), dtype=np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    labels = np.full(adjacency.shape[0], -1, dtype=np.int64)
    labels[connected] = place[own]
    return labels


def embedding(adjacency: "sparse.csr_array", k: int, seed: int) -> tuple[np.ndarray, int]:
    """(coordinates [node, at least k] of nodes with edges, how many of them say which connected part a node is in)."""
    from scipy import sparse
    from scipy.linalg import eigh
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import LinearOperator, eigsh

    root = np.sqrt(adjacency.sum(1))
    scaled = sparse.diags_array(1 / root) @ adjacency @ sparse.diags_array(1 / root)
    n_parts, part = connected_components(adjacency, directed=False)
    whole = np.zeros((len(root), n_parts))
    whole[np.arange(len(root)), part] = root
    whole /= np.linalg.norm(whole, axis=0)
    more, n = k - n_parts, len(root)
    if more <= 0:
        return whole / root[:, None], n_parts
    if n <= _SMALL:
        values, vectors = eigh(scaled.toarray() - 2 * whole @ whole.T)  # which puts their eigenvalue 1 last
    else:
        start = np.random.default_rng(seed).standard_normal(n)
        other = LinearOperator((n, n), matvec=lambda x: scaled @ x - 2 * whole @ (whole.T @ x), dtype=np.float64)
        values, vectors = eigsh(other, k=more, which="LA", v0=start)
    best = np.argsort(-values)[:more]
    return np.concatenate([whole, vectors[:, best]], 1) / root[:, None], n_parts


def _k_means(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        return KMeans(k, n_init=_STARTS, random_state=seed % 2**32).fit_predict(points)


def _labels(sets: list[set[int]], n: int) -> np.ndarray:
    labels = np.empty(n, dtype=np.int64)
    for community, nodes in enumerate(sets):
        labels[list(nodes)] = community
    return labels
