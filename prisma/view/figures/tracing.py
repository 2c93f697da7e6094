"""The picture of causal tracing: restored tokens from top to bottom, layers from left to right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"hidden": "Purples", "mlp": "Greens", "attention": "Reds"}
"""Those of the paper: the stream, MLPs and attentions are told apart at a glance."""


def draw_tracing(
    values: Tensor,
    rows: Sequence[str],
    kind: str,
    *,
    low: float | None = None,
    answer: str | None = None,
    window: int = 1,
    sever: str | None = None,
) -> "Figure":
    """One trace, or one average of traces.

    Args:
        values: [row, layer]: probability of the answer, or an effect.
        rows: a name for each row: tokens, or groups of tokens.
        low: the value of the corrupt run, at which the colours begin (default: the smallest value).
        answer: whose probability it is; without it, the values are average indirect effects.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 1.5 + 0.22 * len(rows)), dpi=150, layout="constrained")
        panel = figure.subplots()
        fill(panel, values, rows, kind, low=low, window=window, sever=sever)
        bar = figure.colorbar(panel.images[0], ax=panel, shrink=0.9)
        bar.ax.set_title(f"p({answer.strip()})" if answer else "AIE", fontsize=8)
    return figure


def fill(
    panel: "Axes",
    values: Tensor,
    rows: Sequence[str],
    kind: str,
    *,
    low: float | None = None,
    high: float | None = None,
    window: int = 1,
    sever: str | None = None,
) -> None:
    """The picture in one panel of a figure; rows without a value (NaN) are grey."""
    x = values.detach().double().cpu()
    panel.imshow(x.numpy(), aspect="auto", cmap=COLOURS[kind], vmin=low, vmax=high, interpolation="nearest")
    panel.set_facecolor("0.85")
    panel.set_yticks(range(len(rows)), [row.replace("$", r"\$") for row in rows])
    layers = x.shape[1]
    step = max(1, -(-layers // 12))
    panel.set_xticks(range(0, layers, step))
    what = {"hidden": "state after one block", "mlp": "MLP", "attention": "attention"}[kind]
    width = f", window of {window} layers" if window > 1 else ""
    panel.set_xlabel("layer")
    panel.set_title(f"restored: {what}{width}" + (f"; {sever} severed" if sever else ""), fontsize=9, loc="left")
