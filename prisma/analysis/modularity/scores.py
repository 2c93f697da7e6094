"""How modular is a partition of a graph? Two numbers, which a partition of nodes into communities has.

With the adjacency A, degrees k_i, 2m their sum, and c_i the community of node i:

    Q      = sum over communities c of  inside(c) / 2m - (vol(c) / 2m)^2     from -1/2 to below 1, high is modular
    n-cut  = sum over communities c of  (vol(c) - inside(c)) / vol(c)         from 0 to K - 1, low is modular

where inside(c) is the weight between nodes of c (each edge from both ends) and vol(c) the sum of their degrees. Q is
the share of weight within communities beyond what their degrees explain.

Sources: Newman and Girvan cond-mat/0308217 (Q); Shi and Malik 2000 (n-cut); Filan et al. 2103.03386 (of networks).
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse

_LEAST = 1e-8  # added to a volume, so that a community without edges counts 0


def newman_q(adjacency: "sparse.csr_array", labels: np.ndarray) -> float:
    """Q of a partition: the share of weight inside communities beyond what the degrees explain.

    Args:
        labels: the community of each node, from 0; -1 for nodes that are in none, which have no edges.
    """
    inside, volume = _shares(adjacency, labels)
    return float((inside - volume**2).sum())


def n_cut(adjacency: "sparse.csr_array", labels: np.ndarray) -> float:
    """The n-cut of a partition: for how much of its weight each community leaves itself, summed over communities.

    Args:
        labels: as in `newman_q`.
    """
    inside, volume = _shares(adjacency, labels)
    total = adjacency.sum()
    return float(((volume - inside) * total / (volume * total + _LEAST)).sum())


def _shares(adjacency: "sparse.csr_array", labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(inside, volume) of each community, over the weight of the whole graph."""
    from scipy import sparse

    here = np.flatnonzero(labels >= 0)
    n, k = adjacency.shape[0], int(labels.max(initial=-1)) + 1
    member = sparse.csr_array((np.ones(len(here)), (here, labels[here])), shape=(n, k))
    total = adjacency.sum()
    inside = (member.T @ adjacency @ member).diagonal() / total
    volume = (member.T @ adjacency.sum(1)) / total
    return inside, volume
