"""The graph of all heads: path patching from every head to q, k and v of every later head, in one call.

What an edge is, and how its effect is measured: `prisma.analysis.circuits.path_patching`.

Source: Wang et al. 2211.00593 (IOI), for every pair of heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.graph import SIDES, Graph, by_layer
from prisma.analysis.circuits.path_runs import PathRuns, group_of
from prisma.analysis.patching.activation_patching import ActivationPatching
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadGraph(ActivationPatching):
    """The metric of every run in which q, k or v of one head reads from another head what it sent on the other image.

    `effect` is the metric itself: where there is no path it is that of the unpatched run. `change` is by how much a
    path moves it, with `change_stderr` and `interval("change")`.
    `metadata["layers"]` names the layers; divided attention has two in each block.
    """

    AXES: ClassVar = {
        "effect": ("side", "sender layer", "sender head", "receiver layer", "receiver head"),
        "stderr": ("side", "sender layer", "sender head", "receiver layer", "receiver head"),
        "values": ("image", "side", "sender layer", "sender head", "receiver layer", "receiver head"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    def plot(self, array: str | None = None) -> "Figure":
        """A panel for each side: how much a path from the head in a row to the head in a column changes the metric.

        Or a picture of one array that has few panels.
        """
        if array is not None:
            return super().plot(array)
        heads = by_layer([layer for layer in self.metadata["layers"] for _ in range(self.values.shape[3])])
        change = self.change.flatten(3, 4).flatten(1, 2)
        names = {"side": self.metadata["side"], "sender": heads, "receiver": heads}
        title = "head graph: how much each path changes the metric"
        return draw(change, ("side", "sender", "receiver"), title=title, names=names)


@guarded
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
    """Which heads pass the difference between two images on to which later heads, and through q, k or v?

    Path patching from every head to every side of every later head, in one call. A cell whose metric equals that of the
    unpatched run is a connection that carries nothing.

    For L layers of H heads and s sides: s H^2 B sum over l of l (L - l) = s H^2 B L (L^2 - 1) / 6 rows of block
    evaluations, and 2 B L for the two runs, as in `path_patching`.

    Args and errors: as in `path_patching`; `sides` is q, k, v or some of them.

    Returns:
        `.effect`, `.stderr` [side, sender layer, sender head, receiver layer, receiver head], `.values` [image, ...].
    """
    graph = Graph(model.config)
    if wrong := [side for side in sides if side not in SIDES]:
        raise PrismaError(f"expected sides among q, k and v; found {wrong[0]!r}")
    stages = [stage for stage in graph.stages if stage.kind != "mlp"]
    if not stages or not sides:
        raise PrismaError(f"expected layers with heads, and sides; found {len(stages)} layers and {len(sides)} sides")
    heads = [str(node) for stage in stages for node in graph.senders[stage.senders]]
    groups = [group_of(graph, f"{head}.{side}") for side in sides for head in heads]
    runs = PathRuns(model, graph, [graph.sender(head) for head in heads], groups, inputs_per_pass(model, batch))
    values, ends = runs.values(clean, corrupt, metric, into)
    layers = (len(stages), model.config.n_heads)
    return HeadGraph(
        metadata={
            "analysis": "head_graph",
            "into": into,
            "pairs": len(clean),
            "side": list(sides),
            "layers": [head.split(".")[0] for head in heads[:: model.config.n_heads]],
        },
        values=values.unflatten(2, (len(sides), *layers)).unflatten(1, layers).permute(0, 3, 1, 2, 4, 5),
        **ends,
    )
