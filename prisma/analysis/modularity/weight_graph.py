"""The graph of the weights of a model: which unit is connected with which, and how strongly."""

from dataclasses import replace

from torch import nn

from prisma.analysis.modularity.graph import MANY_ZEROS, Graph
from prisma.analysis.modularity.network_graph import network_graph
from prisma.analysis.modularity.vit_graph import HEADS, vit_graph
from prisma.errors import PrismaError, expect_packages
from prisma.loaded import Loaded
from prisma.plain import uncompiled
from prisma.runs import kind_of
from prisma.vit import ViT


def weight_graph(module: nn.Module, part: str | None = None) -> Graph:
    """Which units of a network are connected, and how strongly, by its weights? The graph that `modularity` reads.

    An edge's weight is the absolute value of the weight between two units: of a convolution, the sum over the kernel.
    Batch norm is folded in, biases are left out, and what is exactly 0 is no edge.

    Args:
        module: a vision transformer of Prisma; or any network of torch of linear layers and convolutions, such as an
            nn.Sequential or a CNN, with residual connections and concatenations if it has them.
        part: of a vision transformer: heads (by default; edges are composition scores), stream, or an MLP such as
            blocks.3.mlp. Other networks have no parts: pass a part of the network.

    Returns:
        `.adjacency`, the symmetric sparse matrix [node, node]; `.layers`, the number of units of each layer, in the
        order of the nodes; `.pruned`, whether weights were taken out: by `torch.nn.utils.prune`, or more than a tenth
        of them are exactly 0.

    Raises:
        PrismaError: a network whose channels cannot be followed, a part that there is not, hooks, weights that are not
            finite, or scipy is missing.
    """
    expect_packages("scipy", extra="analysis")
    inner = module.model if isinstance(module, Loaded) else module
    if not isinstance(inner, nn.Module):
        raise PrismaError(f"expected a network; found {kind_of(module)}")
    inner = uncompiled(inner)
    if isinstance(inner, ViT):
        return _marked(vit_graph(inner, HEADS if part is None else part))
    if part is not None:
        raise PrismaError(
            f"expected no part of a network that is not a prisma.ViT; found {part!r}: pass the part itself"
        )
    return _marked(network_graph(inner))


def _marked(graph: Graph) -> Graph:
    """As pruned, where so many weights are exactly 0 that somebody must have taken them out."""
    return replace(graph, pruned=True) if graph.zeros > MANY_ZEROS else graph
