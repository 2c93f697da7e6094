"""Graphs with the same weights in other places: what a score is compared with.

Within each pair of layers the weights are put into random places. What stays the same is the number of units and the
distribution of the weights of every layer; what is lost is which unit is connected with which. In a pruned network the
places of the weights that are not 0 stay too (`nonzero`): otherwise the places of the zeros alone would count as
modular. So do those between layers where the architecture has the zeros, as in a depthwise convolution.

Source: Filan et al. 2103.03386.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from prisma.analysis.modularity.graph import Edges, Graph, cells_of, symmetric
from prisma.errors import PrismaError

if TYPE_CHECKING:
    from scipy import sparse

SHUFFLES = ("all", "nonzero")


def kind_of_shuffle(graph: Graph, shuffle: str | None) -> str:
    """`shuffle`, or what suits the graph: nonzero for one of a pruned network, else all.

    Raises:
        PrismaError: it is another word.
    """
    if shuffle is None:
        return "nonzero" if graph.pruned else "all"
    if shuffle not in SHUFFLES:
        raise PrismaError(f"expected shuffle to be {' or '.join(SHUFFLES)}; found {shuffle!r}")
    return shuffle


def shuffled(graph: Graph, times: int, shuffle: str, seed: int) -> Iterator["sparse.csr_array"]:
    """The adjacencies [node, node] of so many shuffled graphs.

    Args:
        shuffle: all (a weight may go anywhere between its two layers), or nonzero (only to where one is not 0).
    """
    random = np.random.default_rng(seed)
    if shuffle == "nonzero" or all(edges.weight.nnz == cells_of(edges) for edges in graph.edges):
        yield from _in_place(graph, times, random)
        return
    for _ in range(times):
        rows, columns = zip(*(_places(graph, edges, random) for edges in graph.edges), strict=True)
        weights = np.concatenate([random.permutation(edges.weight.data) for edges in graph.edges])
        yield symmetric(np.concatenate(rows), np.concatenate(columns), weights, graph.n_nodes)


def _in_place(graph: Graph, times: int, random: np.random.Generator) -> Iterator["sparse.csr_array"]:
    """Shuffles in which the same pairs of nodes stay connected, so that only the values of the matrix change."""
    from scipy import sparse

    numbered = symmetric(*graph.places, np.arange(graph.n_edges, dtype=np.float64), graph.n_nodes)
    edge = numbered.data.astype(np.int64)
    for _ in range(times):
        weights = np.concatenate([random.permutation(edges.weight.data) for edges in graph.edges])
        yield sparse.csr_array((weights[edge], numbered.indices, numbered.indptr), shape=numbered.shape)


def _places(graph: Graph, edges: Edges, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of nodes for the edges between two layers, no pair twice."""
    if edges.weight.nnz == cells_of(edges):
        places = edges.weight.tocoo()
        return places.row + graph.starts[edges.source], places.col + graph.starts[edges.target]
    chosen = random.choice(cells_of(edges), edges.weight.nnz, replace=False, shuffle=False)
    if edges.source != edges.target:
        rows, columns = np.divmod(chosen, edges.weight.shape[1])
    else:  # the pairs i < j are numbered j (j - 1) / 2 + i
        columns = np.floor((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) / 2).astype(np.int64)
        columns -= columns * (columns - 1) // 2 > chosen
        columns += (columns + 1) * columns // 2 <= chosen
        rows = chosen - columns * (columns - 1) // 2
    return rows + graph.starts[edges.source], columns + graph.starts[edges.target]
