"""All heads against all heads, layer after layer, with lines between the layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prisma.view.figures.plots import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_HEAD_NAMES = 8
"""An axis with at most this number of heads names each of them; a longer axis names the layers."""


def draw_similarity(similarity: Tensor, heads: int, *, title: str = "") -> "Figure":
    """A symmetric matrix of all heads with all heads.

    Args:
        similarity: [head, head], the heads of all layers one after another.
        heads: how many heads a layer has.
    """
    figure = draw(similarity, ("head", "other_head"), title=title)
    panel = figure.axes[0]
    layers = [str(layer) for layer in range(len(similarity) // heads)]
    for side in "xy":
        _mark_layers(panel, side, layers, heads, line={"color": "white", "linewidth": 1})
    panel.set(xlabel="heads by layer", ylabel="heads by layer", aspect="equal")
    figure.set_size_inches(5.2, 4.4)
    return figure


def draw_composition(scores: Mapping[str, Tensor], layers: Sequence[str], *, title: str = "") -> "Figure":
    """A matrix for each kind: the heads that write are rows, the heads that read are columns.

    Blank where the writing head does not come before the reading head.

    Args:
        scores: kind -> [sender layer, sender head, layer, head].
        layers: what the layers are called.
    """
    stacked = torch.stack(list(scores.values()))[:, :-1, :, 1:]  # nothing reads the last layer, the first reads nothing
    earlier, heads, later = stacked.shape[1:4]
    blank = ~torch.ones(earlier, later, dtype=torch.bool).triu()
    figure = draw(
        stacked.masked_fill(blank[:, None, :, None], torch.nan).flatten(3).flatten(1, 2),
        ("by", "sender", "head"),
        title=title,
        names={"by": [f"by {kind}" for kind in scores]},
    )
    for panel in figure.axes[: len(scores)]:
        panel.set(xlabel="reading head, by layer", ylabel="writing head, by layer")
        for side, names in (("y", layers[:-1]), ("x", layers[1:])):
            each = len(names) * heads <= MOST_HEAD_NAMES
            _mark_layers(panel, side, names, heads, each=each, line={"color": "#d0d4da", "linewidth": 0.6})
    return figure


def _mark_layers(
    panel: "Axes", side: str, layers: Sequence[str], heads: int, *, line: Mapping[str, Any], each: bool = False
) -> None:
    """Names of the layers (or of each head, `layer.head`) on one axis, and lines between the layers."""
    axis, draw_line = (panel.xaxis, panel.axvline) if side == "x" else (panel.yaxis, panel.axhline)
    if each:
        axis.set_ticks(range(len(layers) * heads), [f"{name}.{head}" for name in layers for head in range(heads)])
    else:
        axis.set_ticks([heads * i + (heads - 1) / 2 for i in range(len(layers))], list(layers))
    for i in range(1, len(layers)):
        draw_line(heads * i - 0.5, **line)
