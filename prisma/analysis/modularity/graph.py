"""A graph of units in layers: nodes are units, undirected edges have weights of 0 or more.

Edges are kept by pairs of layers, so that weights can be shuffled within each pair (`shuffles`), and are put together
into one symmetric sparse matrix, the adjacency A. The degree of a node is the sum of its row.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from prisma.errors import PrismaError, expect_packages, quoted
from prisma.runs import kind_of

if TYPE_CHECKING:
    from scipy import sparse

MANY_ZEROS = 0.1  # a share of exact zeros among weights, above which they were taken out, and not learnt
SUMMED = 1e-12  # of the largest weight: below, a difference of A and its transpose is rounding


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges between the units of two layers, or, where both are the same, within one."""

    source: int  # of the graph's layers
    target: int
    weight: "sparse.csr_array"  # [unit of source, unit of target]; within a layer, each pair once: above the diagonal
    fixed: bool = False  # whether the places of zeros are those of the architecture, as in a grouped convolution


@dataclass(frozen=True, eq=False)
class Graph:
    """Units of layers, and how strongly they are connected. `weight_graph` and its relatives make one.

    A matrix of your own becomes one with `Graph.of(adjacency)`.
    """

    layers: Mapping[str, int]  # name -> number of units; nodes are in this order
    edges: tuple[Edges, ...]
    pruned: bool = False  # whether a weight that is 0 was taken out, so that it cannot be another
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what it is a graph of

    def __post_init__(self) -> None:
        sizes, pairs = list(self.layers.values()), {frozenset((e.source, e.target)) for e in self.edges}
        if len(pairs) < len(self.edges):
            raise PrismaError("expected the edges between two layers once; found them twice")
        for edges in self.edges:
            shape, values = (sizes[edges.source], sizes[edges.target]), edges.weight.data
            if edges.weight.shape != shape:
                raise PrismaError(f"expected weights of edges {list(shape)}; found {list(edges.weight.shape)}")
            if not np.isfinite(values).all() or (values < 0).any():
                wrong = values[~np.isfinite(values) | (values < 0)][0]
                raise PrismaError(f"expected weights of edges that are finite and 0 or more; found {wrong:g}")

    @classmethod
    def of(cls, adjacency: Any, layers: Mapping[str, int] | None = None) -> "Graph":
        """The graph of a symmetric matrix [node, node], an array or a sparse one. Its diagonal is left out.

        Args:
            layers: name -> number of nodes, of nodes that are in layers; by default all are in one.

        Raises:
            PrismaError: no square matrix, one that is not symmetric, weights that are negative or not finite, or layers
                that are not those of its nodes.
        """
        expect_packages("scipy", extra="analysis")
        from scipy import sparse

        if kind_of(adjacency).startswith("a torch"):
            adjacency = adjacency.detach().cpu().numpy()
        try:
            whole = sparse.csr_array(adjacency, dtype=np.float64)
        except (TypeError, ValueError):
            raise PrismaError(f"expected a matrix of weights; found {quoted(adjacency, 80)}") from None
        if whole.ndim != 2 or whole.shape[0] != whole.shape[1]:
            raise PrismaError(f"expected a square matrix of weights; found one of shape {list(whole.shape)}")
        if abs(whole - whole.T).max() > SUMMED * abs(whole).max():
            raise PrismaError(
                "expected a symmetric matrix, because edges have no direction; found another: use A + A.T"
            )
        sizes = {"nodes": whole.shape[0]} if layers is None else dict(layers)
        if sum(sizes.values()) != whole.shape[0]:
            raise PrismaError(f"expected layers of {whole.shape[0]} nodes in all; found {sum(sizes.values())}")
        upper = sparse.triu(whole, 1, format="csr")
        starts = np.cumsum([0, *sizes.values()])
        blocks = [
            Edges(a, b, _kept(upper[starts[a] : starts[a + 1], starts[b] : starts[b + 1]]))
            for a in range(len(sizes))
            for b in range(a, len(sizes))
        ]
        return cls(sizes, tuple(edges for edges in blocks if edges.weight.nnz))

    @cached_property
    def starts(self) -> np.ndarray:
        """The first node of each layer, and the number of nodes."""
        return np.cumsum([0, *self.layers.values()])

    @cached_property
    def layer(self) -> np.ndarray:
        """[node]: the number of its layer."""
        return np.repeat(np.arange(len(self.layers)), list(self.layers.values()))

    @property
    def n_nodes(self) -> int:
        return int(self.starts[-1])

    @property
    def n_edges(self) -> int:
        """How many pairs of units have a weight above 0."""
        return sum(edges.weight.nnz for edges in self.edges)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The two nodes of each edge, in the order of the edges."""
        pairs = [(edges.weight.tocoo().row, edges.weight.tocoo().col) for edges in self.edges] or [
            (np.zeros(0, int), np.zeros(0, int))
        ]
        rows = [pair[0] + self.starts[edges.source] for pair, edges in zip(pairs, self.edges, strict=False)]
        columns = [pair[1] + self.starts[edges.target] for pair, edges in zip(pairs, self.edges, strict=False)]
        return np.concatenate(rows or [np.zeros(0, int)]), np.concatenate(columns or [np.zeros(0, int)])

    @cached_property
    def adjacency(self) -> "sparse.csr_array":
        """[node, node], symmetric."""
        weights = np.concatenate([np.zeros(0), *(edges.weight.data for edges in self.edges)])
        return symmetric(*self.places, weights, self.n_nodes)

    @property
    def zeros(self) -> float:
        """The share of the pairs of units, among connected pairs of layers, whose weight is exactly 0."""
        cells = sum(cells_of(edges) for edges in self.edges)
        return 1 - self.n_edges / cells if cells else 0.0


def cells_of(edges: Edges) -> int:
    """How many pairs of units may have a weight between two layers, or within one."""
    if edges.fixed:
        return int(edges.weight.nnz)
    n, m = edges.weight.shape
    return n * (n - 1) // 2 if edges.source == edges.target else n * m


def symmetric(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, n: int) -> "sparse.csr_array":
    """The adjacency [node, node] of edges that are each given once."""
    from scipy import sparse

    both = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    return sparse.coo_array((np.concatenate([weights, weights]), both), shape=(n, n)).tocsr()


def joined(
    layers: Mapping[str, int],
    weights: Mapping[tuple[str, str], Any],
    fixed: Collection[tuple[str, str]] = (),
    **more: Any,
) -> Graph:
    """A graph from (name of a layer, name of another) -> weights [unit, unit], 0 or more.

    Edges have no direction: weights from one unit to another and back are added. `fixed` are the pairs of layers in
    which the architecture has the zeros.
    """
    from scipy import sparse

    names, found = list(layers), dict[tuple[int, int], Any]()
    for (one, other), weight in weights.items():
        a, b = names.index(one), names.index(other)
        kept = _kept(weight) if a <= b else _kept(weight).T
        if a == b:
            kept = sparse.triu(kept + kept.T, 1)
        place = min(a, b), max(a, b)
        found[place] = found[place] + kept if place in found else kept
    held = {frozenset(names.index(name) for name in pair) for pair in fixed}
    edges = [Edges(*place, _kept(weight), frozenset(place) in held) for place, weight in found.items()]
    return Graph(layers, tuple(edges), **more)


def as_graph(graph: Any) -> Graph:
    """A graph, or that of a matrix. Raises PrismaError for anything else, which says what to call."""
    if isinstance(graph, Graph):
        return graph
    if hasattr(graph, "tocsr") or hasattr(graph, "__array__"):
        return Graph.of(graph)
    advice = ": use weight_graph(module)" if hasattr(graph, "named_modules") else ""
    raise PrismaError(f"expected a graph, or its matrix of weights; found {kind_of(graph)}{advice}")


def _kept(weight: Any) -> "sparse.csr_array":
    """Weights without entries that are stored and 0, in the order of rows and columns."""
    from scipy import sparse

    found = sparse.csr_array(weight, dtype=np.float64)
    found.eliminate_zeros()
    found.sort_indices()
    return found


def layer_counts(graph: Graph, labels: np.ndarray, communities: int) -> np.ndarray:
    """[layer, community]: how many units of each layer are in each community."""
    counts = np.zeros((len(graph.layers), communities), dtype=np.int64)
    inside = labels >= 0
    np.add.at(counts, (graph.layer[inside], labels[inside]), 1)
    return counts
