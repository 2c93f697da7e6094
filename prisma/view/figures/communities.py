"""Communities of a graph: their score against shuffled graphs, and in which layers they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#30638e", "#d1495b", "#edae49", "#3a7d44", "#7b5ea7", "#00798c", "#8a6240", "#b85c9e", "#8a8f98")
_NARROW = 24  # characters of a layer's name


def draw_communities(q: float, shuffled: Tensor, counts: Tensor, layers: Sequence[str], *, title: str = "") -> "Figure":
    """Left: the score of the graph, a line, and those of shuffled graphs. Right: the communities of each layer's units.

    Args:
        shuffled: [shuffle].
        counts: [layer, community]: numbers of units.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, max(2.6, 1.4 + 0.24 * len(layers))), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        left.hist(shuffled.numpy(), bins=min(20, len(shuffled)), color="#c3c8d0", label="shuffled weights")
        left.axvline(q, color=_COLOURS[1], linewidth=2, label="this network")
        left.set(xlabel="Q", ylabel="shuffled graphs")
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
        shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
        before = shares.new_zeros(len(layers))
        for community, share in enumerate(shares.mT):
            colour = _COLOURS[min(community, len(_COLOURS) - 1)]
            right.barh(range(len(layers)), share.numpy(), left=before.numpy(), color=colour, edgecolor="white")
            before = before + share
        right.set_yticks(
            range(len(layers)), [name if len(name) <= _NARROW else f"…{name[-_NARROW:]}" for name in layers]
        )
        right.invert_yaxis()
        right.set(xlabel="share of the layer's units, by community", xlim=(0, 1))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure
