"""Path patching, exactly: what changes if one receiver reads from one sender what it sent on another image?

    effect[u, v] = metric(logits of the target run in which the input of v alone contains what u sent in the source
                   run; every other direct path is frozen, and everything after v is computed anew)

This replaces the edge u -> v of the `graph` and no other. The input of v is then the stream with u's new message in
place of its old one, which needs no run; from v's block on, the model runs as usual.

With `mlps="recomputed"` the path from u to v leads through the MLPs between them as well: they read u's new message,
and v reads what they then write. All other heads stay frozen. This is the form of Wang et al.; the frozen form is one
edge.

Sources: Goldowsky-Dill et al. 2304.05969 (frozen); Wang et al. 2211.00593 (IOI; recomputed).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.graph import Edge, Graph, largest, names, picture_labels
from prisma.analysis.circuits.path_runs import PathRuns, group_of
from prisma.analysis.patching.activation_patching import ActivationPatching
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MLPS = ("frozen", "recomputed")


@dataclass(frozen=True, kw_only=True, eq=False)
class PathPatching(ActivationPatching):
    """The metric of every patched run; `metadata` has the names of senders and receivers.

    `effect` is the metric itself: where there is no path it is that of the unpatched run. `change` is by how much a
    path moves it, with `change_stderr` and `interval("change")`.
    """

    AXES: ClassVar = {
        "effect": ("sender", "receiver"),
        "stderr": ("sender", "receiver"),
        "values": ("image", "sender", "receiver"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return picture_labels(self.metadata)

    def plot(self, array: str | None = None) -> "Figure":
        """A heat map of how much each path changes the metric; or a picture of one array."""
        if array is not None:
            return super().plot(array)
        change = self.change
        title = "path patching: how much each path changes the metric"
        return draw(change, ("sender", "receiver"), title=title, names=self.names)

    def top(self, n: int = 10) -> list[tuple[Edge, float]]:
        """The n paths that change the metric most, with the change, mean over pairs."""
        return largest(self.change, self.metadata, n)


@guarded
@torch.no_grad()
def path_patching(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    mlps: str = "frozen",
    into: str = "clean",
    batch: int | None = None,
) -> PathPatching:
    """Through which connection does the difference between two images reach the metric?

    The direct path from every sender to every receiver is patched, one at a time. A path whose patched metric equals
    that of the unpatched run carries nothing; `.top()` lists the paths that change the metric most.

    For L layers and B pairs, in rows of block evaluations: 2 B L for the two runs, and for each path into layer l,
    B (L - l) if the receiver is in attention (the first of which computes only what comes after that attention),
    B (L - l - 1) if it is an MLP, none if it is the readout. Besides, q, k and v of a layer are computed once for each
    sender before it, and z once more for each side.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which depends on that pair's logits alone.
        senders: names as in `prisma.analysis.circuits.graph`; by default all.
        receivers: likewise; a head without a side (`"a1.h2"`) is patched in q, k and v at once.
        mlps: those between a sender and a receiver: `"frozen"`, so that a path is one edge, or `"recomputed"`, so that
            it leads through them too. The latter costs an MLP for each sender and pair in every later layer.
        into: `"clean"` patches corrupt values into the clean run (noising), `"corrupt"` the other way (denoising).
        batch: inputs per pass at most, and streams (one for each sender and pair) in memory at most, though one pair's
            streams always are; by default as many as fit in 256 MiB.

    Returns:
        `.effect`, `.stderr` [sender, receiver], `.values` [image, sender, receiver], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, a node does not exist, or the metric is not one finite number per pair.
    """
    graph = Graph(model.config)
    senders = names(graph.senders) if senders is None else list(senders)
    receivers = names(graph.receivers) if receivers is None else list(receivers)
    if not senders or not receivers:
        raise PrismaError(
            f"expected at least one sender and one receiver; found {len(senders)} senders, {len(receivers)} receivers"
        )
    groups = [group_of(graph, name) for name in receivers]
    if mlps not in MLPS:
        raise PrismaError(f"expected mlps to be {' or '.join(MLPS)}; found {mlps!r}")
    size, chosen = inputs_per_pass(model, batch), [graph.sender(name) for name in senders]
    runs = PathRuns(model, graph, chosen, groups, size, mlps_follow=mlps == "recomputed")
    values, ends = runs.values(clean, corrupt, metric, into)
    settings = {"into": into, "mlps": mlps, "pairs": len(clean), "senders": senders, "receivers": receivers}
    return PathPatching(metadata={"analysis": "path_patching", **settings}, values=values, **ends)
