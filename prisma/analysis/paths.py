"""Path patching, exactly: what changes if one receiver hears one sender as it was on other images?

    effect[u, v] = metric(logits of the run on `target` in which the input of v, and v alone, holds what u sent
                   on `donor`; every other direct path is frozen, and all that comes after v is computed anew)

That is the edge u -> v of `prisma.analysis.graph` replaced, all others as they are. Nothing has to be run to know what
v reads then: it is u's message added to the stream in place of the old one. From v's block on, real blocks run.

Sources: Wang et al. 2211.00593 (IOI); Goldowsky-Dill et al. 2304.05969 (here, too, MLPs between u and v are frozen).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.graph import SIDES, Edge, Graph, by_layer, ends, largest, names
from prisma.analysis.passes import pass_size
from prisma.analysis.patching import Patching
from prisma.analysis.path_walk import PathWalk, group_of
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.view.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Paths(Patching):
    """The metric of every patched run; `produced` has the names of senders and receivers. No path, no change."""

    AXES: ClassVar = {
        "effect": ("sender", "receiver"),
        "stderr": ("sender", "receiver"),
        "values": ("image", "sender", "receiver"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return ends(self.produced)

    def plot(self, array: str | None = None) -> "Figure":
        """How much each path changes the metric; or a picture of one array."""
        if array is not None:
            return super().plot(array)
        change = self.effect - self._base.mean()
        title = "path patching: how much each path changes the metric"
        return draw(change, ("sender", "receiver"), title=title, names=self.names)

    def top(self, n: int = 10) -> list[tuple[Edge, float]]:
        """The n paths that change the metric most, and by how much, means over pairs."""
        return largest(self.effect - self._base.mean(), self.produced, n)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadGraph(Patching):
    """The metric of every run in which one side (q, k, v) of one head hears another head as it was.

    `produced["layers"]` names the layers, of which divided attention has two in each block. No path, no change.
    """

    AXES: ClassVar = {
        "effect": ("side", "sender layer", "sender head", "receiver layer", "receiver head"),
        "stderr": ("side", "sender layer", "sender head", "receiver layer", "receiver head"),
        "values": ("image", "side", "sender layer", "sender head", "receiver layer", "receiver head"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    def plot(self, array: str | None = None) -> "Figure":
        """A panel for each side: how much a path from the head of a row to that of a column changes the metric.

        Or a picture of one array, as long as it has few panels.
        """
        if array is not None:
            return super().plot(array)
        heads = by_layer([layer for layer in self.produced["layers"] for _ in range(self.values.shape[3])])
        change = (self.effect - self._base.mean()).flatten(3, 4).flatten(1, 2)
        names = {"side": self.produced["side"], "sender": heads, "receiver": heads}
        title = "head graph: how much each path changes the metric"
        return draw(change, ("side", "sender", "receiver"), title=title, names=names)


@torch.no_grad()
def path_patch(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    into: str = "clean",
    batch: int | None = None,
) -> Paths:
    """Patch the direct path from every sender to every receiver, one at a time.

    For L layers and B pairs, in rows of block evaluations: 2 B L for the two runs, and for each path into layer l,
    B (L - l) if the receiver is in attention (the first of which computes only what comes after that attention),
    B (L - l - 1) if it is an MLP, none if it is the readout. Besides, q, k and v of a layer are computed once for each
    sender before it, and z once more for each side.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], each of its image alone.
        senders: names as in `prisma.analysis.graph`; by default all.
        receivers: likewise; a head without a side (`"a1.h2"`) is patched in q, k and v at once.
        into: `"clean"` patches corrupt values into the clean run (noising), `"corrupt"` the other way (denoising).
        batch: at most so many inputs in one pass, and so many streams (one for each sender and pair) in memory; by
            default as many as have 256 MiB of activations. At least one pair has its streams in memory.

    Returns:
        `.effect`, `.stderr` [sender, receiver], `.values` [image, sender, receiver], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, a node does not exist, or the metric is not one finite number per pair.
    """
    graph = Graph(model.config)
    senders = names(graph.senders) if senders is None else list(senders)
    receivers = names(graph.receivers) if receivers is None else list(receivers)
    if not senders or not receivers:
        raise PrismaError(f"paths have ends; found {len(senders)} senders and {len(receivers)} receivers")
    groups = [group_of(graph, name) for name in receivers]
    walk = PathWalk(model, graph, [graph.sender(name) for name in senders], groups, pass_size(model, batch))
    values, runs = walk.values(clean, corrupt, metric, into)
    return Paths(
        produced={
            "analysis": "path patching",
            "into": into,
            "pairs": len(clean),
            "senders": senders,
            "receivers": receivers,
        },
        values=values,
        **runs,
    )


@torch.no_grad()
def head_graph(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    sides: Sequence[str] = SIDES,
    into: str = "clean",
    batch: int | None = None,
) -> HeadGraph:
    """Path patching from every head to every side of every later head, in one call.

    For L layers of H heads and s sides: s H^2 B sum over l of l (L - l) = s H^2 B L (L^2 - 1) / 6 rows of block
    evaluations, and 2 B L for the two runs; as in `path_patch`, which this is for all pairs of heads.

    Args and errors: as in `path_patch`; `sides` are q, k, v or some of them.

    Returns:
        `.effect`, `.stderr` [side, sender layer, sender head, receiver layer, receiver head], `.values` [image, ...].
    """
    graph = Graph(model.config)
    if wrong := [side for side in sides if side not in SIDES]:
        raise PrismaError(f"the sides of a head are q, k and v; found {wrong[0]!r}")
    stages = [stage for stage in graph.stages if stage.kind != "mlp"]
    if not stages or not sides:
        raise PrismaError(f"a graph of heads needs heads and sides; found {len(stages)} layers and {len(sides)} sides")
    heads = [str(node) for stage in stages for node in graph.senders[stage.senders]]
    groups = [group_of(graph, f"{head}.{side}") for side in sides for head in heads]
    walk = PathWalk(model, graph, [graph.sender(head) for head in heads], groups, pass_size(model, batch))
    values, runs = walk.values(clean, corrupt, metric, into)
    layers = (len(stages), model.config.n_heads)
    return HeadGraph(
        produced={
            "analysis": "head graph",
            "into": into,
            "pairs": len(clean),
            "side": list(sides),
            "layers": [head.split(".")[0] for head in heads[:: model.config.n_heads]],
        },
        values=values.unflatten(2, (len(sides), *layers)).unflatten(1, layers).permute(0, 3, 1, 2, 4, 5),
        **runs,
    )
