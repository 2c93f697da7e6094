"""Arrays with named axes as pictures: lines, heat maps, rows of heat maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prisma.errors import PrismaError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3b4048",
    "xtick.color": "#5b616b",
    "ytick.color": "#5b616b",
    "legend.frameon": False,
    "svg.hashsalt": "prisma",  # otherwise the ids are random
}
MOST_PANELS = 24
MOST_NUMBERS = 150


def draw(values: Tensor, axes: Sequence[str], *, title: str = "") -> "Figure":
    """One array. One axis is a line, two are a heat map, more are heat maps of the last two side by side.

    Heat maps share one scale: from the smallest value to the largest, or around zero where there are both signs.

    Raises:
        PrismaError: the array is empty or has too many panels to be read.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not values.numel():
        raise PrismaError(f"there is nothing to draw: the array is {list(values.shape)}")
    x = torch.as_tensor(values).detach().double().cpu()
    panels = x.reshape(-1, *x.shape[-2:]) if x.ndim >= 2 else x.reshape(1, -1)
    if len(panels) > MOST_PANELS and x.ndim > 2:
        raise PrismaError(f"a picture holds at most {MOST_PANELS} panels; found {len(panels)}: choose by index first")
    with rc_context(STYLE):
        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        width, height = (6.4, 3.8) if len(panels) == 1 else (3.0 * columns, 2.6 * rows + 0.4)
        if len(panels) == 1 and x.ndim > 1:
            height = min(height, 1.4 + 0.5 * panels.shape[1])  # few rows make a low picture
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for panel in grid[len(panels) :]:
            panel.set_axis_off()
        if x.ndim < 2:
            _line(grid[0], x.reshape(-1), axes[-1] if axes else "")
        else:
            images = [_heat(panel, part, axes[-2:], x) for panel, part in zip(grid, panels, strict=False)]
            figure.colorbar(images[0], ax=grid, shrink=0.8)
            _name_panels(grid, x, axes)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure


def _line(panel: "Axes", x: Tensor, name: str) -> None:
    panel.plot(range(len(x)), x.numpy(), color="#d1495b", linewidth=1.6, marker="o", markersize=3)
    panel.set_xlabel(name)
    panel.grid(color="#e6e8eb")


def _heat(panel: "Axes", part: Tensor, axes: Sequence[str], whole: Tensor) -> Any:
    from matplotlib.ticker import FixedLocator, MaxNLocator

    seen = whole[whole.isfinite()]
    low, high = (seen.min().item(), seen.max().item()) if seen.numel() else (0.0, 1.0)
    if low < 0 < high:
        low, high, colours = -max(-low, high), max(-low, high), "RdBu_r"
    else:
        colours = "viridis"
    image = panel.imshow(part.numpy(), aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    panel.set_ylabel(axes[0])
    panel.set_xlabel(axes[1])
    for axis, size in ((panel.yaxis, part.shape[0]), (panel.xaxis, part.shape[1])):
        axis.set_major_locator(FixedLocator(range(size)) if size <= 16 else MaxNLocator(12, integer=True))
    if part.numel() <= MOST_NUMBERS and panel.figure.axes == [panel]:
        _numbers(panel, part, low, high)
    return image


def _numbers(panel: "Axes", part: Tensor, low: float, high: float) -> None:
    """Each cell's value, light on dark: both ends of the diverging map are dark, and the low end of the other."""
    for (row, column), value in zip(
        torch.cartesian_prod(*map(torch.arange, part.shape)).tolist(), part.flatten().tolist(), strict=True
    ):
        share = (value - low) / (high - low) if high > low else 0.5
        dark = abs(share - 0.5) > 0.3 if low < 0 else share < 0.5
        panel.text(
            column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color="white" if dark else "#1f2328"
        )


def _name_panels(grid: Sequence["Axes"], x: Tensor, axes: Sequence[str]) -> None:
    """`layer 0, head 3` over each panel of an array with more than two axes."""
    for panel, index in zip(
        grid, torch.cartesian_prod(*map(torch.arange, x.shape[:-2])) if x.ndim > 2 else (), strict=False
    ):
        numbers = index.reshape(-1).tolist()
        panel.set_title(", ".join(f"{a} {i}" for a, i in zip(axes, numbers, strict=False)), fontsize=9, loc="left")
