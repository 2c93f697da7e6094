"""Modularity: does a network's graph fall into communities, more than its weights alone make it?

Newman's Q and the n-cut (`scores`) of the best partition that one finds (`partition`) say little by themselves: any
graph has some, since the partition is chosen for it. So both are compared with graphs whose weights are shuffled within
layers (`shuffles`), for each of which a partition is found in the same way. Where the number of communities is chosen,
it is chosen again for each; but the n-cut, which grows with the number, is that of as many communities:

    z = (score - mean of the shuffled) / their standard deviation,      p = (r + 1) / (n + 1)

where r of the n shuffled graphs are at least as modular.

Sources: Newman and Girvan cond-mat/0308217; Filan et al. 2103.03386 (networks, n-cut, shuffles).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.modularity.graph import MANY_ZEROS, Graph, as_graph, layer_counts
from prisma.analysis.modularity.partition import partition as communities_of
from prisma.analysis.modularity.scores import n_cut, newman_q
from prisma.analysis.modularity.shuffles import kind_of_shuffle, shuffled
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.view.figures.communities import draw_communities

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from scipy import sparse

SCORES = ("Q", "n-cut")
_NO_SPREAD = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Modularity(Result):
    """Q and n-cut of a partition of a graph, and of the partitions of shuffled graphs.

    `q` and `n_cut` alone depend on the number of communities and of nodes; `z` and `p` (and `n_cut_z`, `n_cut_p`) say
    how unusual they are. High Q and low n-cut are modular, so a modular graph has a positive `z` and a negative
    `n_cut_z`. `labels` has the community of each node, the largest first, and -1 for nodes without edges.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "counts": ("layer", "community"),
        "labels": ("node",),
        "layer": ("node",),
        "score": ("kind",),
        "shuffled": ("kind", "shuffle"),
    }

    labels: Tensor  # [node], int64
    layer: Tensor  # [node], int64: the number of the layer in `metadata["layers"]`
    counts: Tensor  # [layer, community], int64: units
    score: Tensor  # [kind]: Q and n-cut
    shuffled: Tensor  # [kind, shuffle]

    @property
    def q(self) -> float:
        """Newman's Q, from -1/2 to below 1: the share of weight inside communities beyond what the degrees explain."""
        return float(self.score[0])

    @property
    def n_cut(self) -> float:
        """The n-cut, from 0 to the number of communities less 1: low for communities that keep their weight."""
        return float(self.score[1])

    @property
    def z(self) -> float:
        """Q in standard deviations of the shuffled graphs, above their mean; NaN if they are all alike."""
        return self._z(0)

    @property
    def p(self) -> float:
        """The probability of such a Q, or a higher one, of a shuffled graph; at least 1 / (shuffles + 1)."""
        return self._p(self.shuffled[0] >= self.score[0] - _NO_SPREAD)

    @property
    def n_cut_z(self) -> float:
        """As `z`, of the n-cut: negative if the graph is more modular than shuffled ones."""
        return self._z(1)

    @property
    def n_cut_p(self) -> float:
        """As `p`, of the n-cut: the probability of such a one, or a lower one."""
        return self._p(self.shuffled[1] <= self.score[1] + _NO_SPREAD)

    def _z(self, kind: int) -> float:
        null = self.shuffled[kind]
        spread = float(null.std())
        return float(self.score[kind] - null.mean()) / spread if spread > _NO_SPREAD else float("nan")

    def _p(self, as_modular: Tensor) -> float:
        return (int(as_modular.sum()) + 1) / (len(as_modular) + 1)

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": self.metadata["layers"], "kind": SCORES}

    def plot(self, array: str | None = None) -> "Figure":
        """Q against the shuffled graphs, and which layers the communities are in; or a picture of one array."""
        if array is not None:
            return super().plot(array)
        title = f"modularity: Q = {self.q:.3f}, z = {self.z:.1f}, p = {self.p:.3g}"
        return draw_communities(self.q, self.shuffled[0], self.counts, self.metadata["layers"], title=title)

    def report(self, classes: Sequence[str] = ()) -> str:
        """Both scores with their null, the communities, and what was left out."""
        about, rows = self.metadata, []
        pairs = zip(SCORES, self.score.tolist(), (self.z, self.n_cut_z), (self.p, self.n_cut_p), strict=True)
        for i, (name, value, z, p) in enumerate(pairs):
            rows.append(f"{name} = {value:.4f} (shuffled: {self.shuffled[i].mean():.4f}), z = {z:.1f}, p = {p:.3g}")
        sizes = ", ".join(str(n) for n in self.counts.sum(0).tolist())
        rows.append(f"{self.counts.shape[1]} communities ({about['partition']}) of {sizes} units")
        if about["isolated"]:
            rows.append(f"{about['isolated']} of {len(self.labels)} units have no edges and are in no community")
        if about["shuffle"] == "all" and about["zeros"] > MANY_ZEROS:
            rows.append(
                f"{about['zeros']:.0%} of the weights are exactly 0: shuffle=nonzero asks for more than where they are"
            )
        if about["shuffle"] == "nonzero" and about["zeros"] > MANY_ZEROS:
            rows.append(
                f"{about['zeros']:.0%} of the weights are exactly 0, and stay so in shuffled graphs: shuffle=all asks "
                "whether their places are modular too"
            )
        return "\n".join(rows)


@guarded
def modularity(
    graph: Graph,
    k: int | None = None,
    null: int = 200,
    *,
    partition: str = "spectral",
    shuffle: str | None = None,
    seed: int = 0,
) -> Modularity:
    """Does a graph fall into communities, more than its weights alone make it?

    `q` is the share of weight inside communities beyond what the degrees of the units explain. A dense random network
    has 0.1 or so, and a number of communities that is not the graph's own lowers it, so read `z` and `p`: how far `q`
    is from graphs with the same weights in other places.

    Args:
        graph: what `weight_graph`, `activation_graph` or `gradient_graph` returns, or a symmetric matrix [node, node].
        k: the number of communities; by default it is chosen, for shuffled graphs too (of spectral: from 2 to 8). The
            n-cut of a shuffled graph is always that of as many communities, but for louvain.
        null: how many shuffled graphs.
        partition: spectral, louvain (chooses the number), or greedy. The last two are slow on large graphs.
        shuffle: where weights may go: all (anywhere between their two layers) or nonzero (only to where one is not 0);
            by default nonzero for a pruned network (one of which more than a tenth of the weights is 0), else all. Of
            a network that was built in parts, the places of the zeros are what is asked: use all.
        seed: of the partition and of the shuffles.

    Returns:
        `.q`, `.z`, `.p`, `.n_cut`, `.n_cut_z`, `.n_cut_p`, and `.labels` [node].

    Raises:
        PrismaError: no graph, one without edges, fewer than 2 shuffles, a number of communities that the graph cannot
            have, an option with another value, or scikit-learn or networkx is missing.
    """
    found = as_graph(graph)
    if null < 2:
        raise PrismaError(f"expected null to be at least 2, the number of shuffled graphs; found {null}")
    kind = kind_of_shuffle(found, shuffle)
    labels = communities_of(found.adjacency, k, partition, seed)
    count = k if partition == "louvain" else int(labels.max()) + 1
    drawn = shuffled(found, null, kind, seed)
    null_scores = [_null_scores(adjacency, k, count, partition, seed) for adjacency in drawn]
    return Modularity(
        metadata={
            "analysis": "modularity", **found.metadata, "layers": list(found.layers), "edges": found.n_edges,
            "isolated": int((labels < 0).sum()), "zeros": found.zeros, "k": k, "null": null,
            "partition": partition, "shuffle": kind, "seed": seed,
        },
        labels=torch.from_numpy(labels),
        layer=torch.from_numpy(found.layer),
        counts=torch.from_numpy(layer_counts(found, labels, int(labels.max()) + 1)),
        score=torch.tensor(_scores(found.adjacency, labels), dtype=torch.float64),
        shuffled=torch.tensor(null_scores, dtype=torch.float64).mT.contiguous(),
    )  # fmt: skip


def _scores(adjacency: "sparse.csr_array", labels: np.ndarray) -> tuple[float, float]:
    return newman_q(adjacency, labels), n_cut(adjacency, labels)


def _null_scores(
    adjacency: "sparse.csr_array", k: int | None, count: int | None, how: str, seed: int
) -> tuple[float, float]:
    """The scores of a shuffled graph: Q as it was found, the n-cut of as many communities as the graph itself has."""
    labels = communities_of(adjacency, k, how, seed)
    q = newman_q(adjacency, labels)
    if count != k:
        labels = communities_of(adjacency, count, how, seed)
    return q, n_cut(adjacency, labels)


def agreement(one: Any, other: Any) -> float:
    """How much two partitions of the same nodes agree: 1 is the same, 0 is chance (adjusted Rand index).

    Args:
        one, other: [node], such as `labels` of two results. Nodes that are in no community of either are left out.

    Raises:
        PrismaError: partitions of other nodes, or no node that is in a community of both.
    """
    from sklearn.metrics import adjusted_rand_score

    a, b = (np.asarray(labels) for labels in (one, other))
    if a.shape != b.shape:
        raise PrismaError(f"expected two partitions of the same nodes; found {list(a.shape)} and {list(b.shape)}")
    both = (a >= 0) & (b >= 0)
    if not both.any():
        raise PrismaError(f"expected nodes that are in a community of both partitions; found none of {a.size}")
    return float(adjusted_rand_score(a[both], b[both]))
