"""A circuit as a graph: layers from bottom to top, heads side by side, edges coloured by their scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[float, float]
Edge = tuple[str, str]
SIDES = ("q", "k", "v")  # where an edge enters a head
UP, DOWN = "#b2182b", "#2166ac"
"""Colours of edges whose replacement lowers the metric, and of those whose replacement raises it."""


def places(senders: Sequence[str]) -> dict[str, Place]:
    """Node -> (x, y): `embed` below, a row for the heads of a layer, then its MLP to the right; `logits` on top."""
    heads = 1 + max((int(name.split(".h")[1]) for name in senders if ".h" in name), default=0)
    found: dict[str, Place] = {"embed": ((heads - 1) / 2, 0.0)}
    height, row = 0.0, ""
    for name in senders[1:]:
        stem = name.split(".")[0]
        if stem != row:
            height, row = height + (0.6 if stem.startswith("m") else 1.2), stem
        found[name] = (float(heads), height) if stem.startswith("m") else (float(name.split(".h")[1]), height)
    found["logits"] = ((heads - 1) / 2, height + 1.2)
    return found


def draw_circuit(senders: Sequence[str], edges: Sequence[tuple[Edge, float]]) -> "Figure":
    """Nodes in the circuit have names, other nodes are dots. Edges end at q, k or v of a head.

    Replacing a red edge lowers the metric (its score, the change, is negative); replacing a blue edge raises it. The
    width of an edge is proportional to the absolute score.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    at = places(senders)
    width = max(x for x, _ in at.values()) + 1
    height = at["logits"][1]
    with rc_context(STYLE):
        figure = Figure(
            figsize=(min(2.0 + 0.8 * width, 16), min(1.2 + 0.8 * height, 20)), dpi=150, layout="constrained"
        )
        panel = figure.subplots()
        largest = max((abs(score) for _, score in edges), default=0.0) or 1.0
        for (sender, receiver), score in sorted(edges, key=lambda edge: abs(edge[1])):
            _edge(panel, at[sender], _port(at, receiver), score / largest)
        used = {end for (s, v), _ in edges for end in (s, ".".join(v.split(".")[:2]))}
        for name, place in at.items():
            _node(panel, name, place, name in used)
        for receiver in {receiver for (_, receiver), _ in edges if receiver.count(".") == 2}:
            letter = {"boxstyle": "round,pad=0.08", "facecolor": "white", "edgecolor": "none"}
            panel.annotate(
                receiver[-1], _port(at, receiver), ha="center", va="center", fontsize=7, bbox=letter, zorder=4
            )
        panel.set_xlim(-0.7, width - 0.3)
        panel.set_ylim(-0.4, height + 0.4)
        panel.set_axis_off()
        figure.suptitle(f"circuit: {len(edges)} edges", x=0.01, ha="left", fontweight="bold", color="#1f2328")
        caption = f"replacing a red edge lowers the metric, a blue edge raises it; the widest by {largest:.3g}"
        panel.set_title(caption, loc="left", fontsize=7, color="#5b616b")
    return figure


def _port(at: dict[str, Place], receiver: str) -> Place:
    """Where an edge ends: below the node; at a head, q is left, k in the middle, v right."""
    name, side = (receiver[:-2], receiver[-1]) if receiver.count(".") == 2 else (receiver, "k")
    x, y = at[name]
    return x + 0.22 * (SIDES.index(side) - 1), y - (0.25 if name != receiver else 0.15)


def _edge(panel: "Axes", start: Place, end: Place, share: float) -> None:
    """A curve that starts upwards and ends from below."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (x, y), (to_x, to_y) = (start[0], start[1] + 0.13), end
    bend = max(0.35 * (to_y - y), 0.2)
    path = Path(
        [(x, y), (x, y + bend), (to_x, to_y - bend), (to_x, to_y)],
        [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
    )
    strength = abs(share)
    look: Any = {
        "edgecolor": UP if share < 0 else DOWN,
        "linewidth": 0.5 + 3.0 * strength,
        "alpha": 0.3 + 0.6 * strength,
    }
    panel.add_patch(PathPatch(path, facecolor="none", capstyle="round", zorder=1, **look))


def _node(panel: "Axes", name: str, place: Place, used: bool) -> None:
    if not used:
        panel.plot(*place, marker="o", markersize=3, color="#d5d8dd", zorder=2)
        return
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "#8a8f98", "linewidth": 0.8}
    panel.annotate(name, place, ha="center", va="center", fontsize=8, color="#1f2328", bbox=box, zorder=3)
