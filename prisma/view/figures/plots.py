"""Figures of arrays with named axes: lines, heat maps, rows of heat maps."""

import math
from collections.abc import Mapping, Sequence
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
    "svg.hashsalt": "prisma",  # otherwise the ids in an SVG are random
}
MOST_PANELS = 24
MOST_NUMBERS = 150
SMALL = (12, 6)  # rows and columns of a panel, one among several, that still has room for numbers


def draw(
    values: Tensor, axes: Sequence[str], *, title: str = "", names: Mapping[str, Sequence[str]] | None = None
) -> "Figure":
    """One array: with one axis a line, with two a heat map, with more a row of heat maps of the last two axes.

    Heat maps share one scale: from the smallest value to the largest, or around zero where there are both signs.

    Args:
        names: axis -> names of its indices; without names, numbers are shown.

    Raises:
        PrismaError: the array is empty or would need too many panels.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not values.numel():
        raise PrismaError(f"expected an array with values to draw; found shape {list(values.shape)}")
    x, names = torch.as_tensor(values).detach().double().cpu(), names or {}
    panels = x.reshape(-1, *x.shape[-2:]) if x.ndim >= 2 else x.reshape(1, -1)
    if len(panels) > MOST_PANELS and x.ndim > 2:
        raise PrismaError(f"a figure has at most {MOST_PANELS} panels; found {len(panels)}; select some first")
    with rc_context(STYLE):
        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        width, height = (6.4, 3.8) if len(panels) == 1 else (3.0 * columns, 2.6 * rows + 0.4)
        if len(panels) == 1 and x.ndim > 1:
            height = min(height, 1.4 + 0.5 * panels.shape[1])  # a low figure for few rows
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for panel in grid[len(panels) :]:
            panel.set_axis_off()
        if x.ndim < 2:
            _line(grid[0], x.reshape(-1), axes[-1] if axes else "", names)
        else:
            images = [_heat(panel, part, axes[-2:], x, names) for panel, part in zip(grid, panels, strict=False)]
            figure.colorbar(images[0], ax=grid, shrink=0.8)
            _name_panels(grid, x, axes, names)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure


def _line(panel: "Axes", x: Tensor, name: str, names: Mapping[str, Sequence[str]]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.plot(range(len(x)), x.numpy(), color="#d1495b", linewidth=1.6, marker="o", markersize=3)
    panel.set_xlabel(name)
    panel.grid(color="#e6e8eb")
    if name in names:
        panel.set_xticks(range(len(x)), names[name])
    else:
        panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))


def _heat(panel: "Axes", part: Tensor, axes: Sequence[str], whole: Tensor, names: Mapping[str, Sequence[str]]) -> Any:
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

    seen = whole[whole.isfinite()]
    low, high = (seen.min().item(), seen.max().item()) if seen.numel() else (0.0, 1.0)
    if low < 0 < high:
        low, high, colours = -max(-low, high), max(-low, high), "RdBu_r"
    else:
        colours = "viridis"
    image = panel.imshow(part.numpy(), aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    panel.set_ylabel(axes[0])
    panel.set_xlabel(axes[1])
    for name, axis, size in zip(axes, (panel.yaxis, panel.xaxis), part.shape, strict=True):
        all_of_them = size <= 16 or name in names
        axis.set_major_locator(FixedLocator(range(size)) if all_of_them else MaxNLocator(12, integer=True))
        if name in names:
            axis.set_major_formatter(FixedFormatter(names[name]))
    alone, (rows, columns) = part.numel() == whole.numel(), part.shape
    if part.numel() <= MOST_NUMBERS and (alone or (rows <= SMALL[0] and columns <= SMALL[1])):
        _numbers(panel, part, low, high)
    return image


def _numbers(panel: "Axes", part: Tensor, low: float, high: float) -> None:
    """Each cell's value, in white on dark cells: both ends of the diverging map are dark, and the low end of viridis.

    All numbers have the same decimals: two for numbers around one.
    """
    most = max(-low, high)
    power = math.floor(math.log10(most)) if most > 0 else 0
    form = f"z.{max(0, 2 - power - (power < 0))}f" if -4 < power < 5 else ".2g"
    for (row, column), value in zip(
        torch.cartesian_prod(*map(torch.arange, part.shape)).tolist(), part.flatten().tolist(), strict=True
    ):
        if math.isnan(value):
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        dark = abs(share - 0.5) > 0.3 if low < 0 < high else share < 0.5
        panel.text(
            column, row, f"{value:{form}}", ha="center", va="center", fontsize=7, color="white" if dark else "#1f2328"
        )


def _name_panels(grid: Sequence["Axes"], x: Tensor, axes: Sequence[str], names: Mapping[str, Sequence[str]]) -> None:
    """`layer 0, head 3` above each panel of an array with more than two axes; an index with a name is shown by name."""
    for panel, index in zip(
        grid, torch.cartesian_prod(*map(torch.arange, x.shape[:-2])) if x.ndim > 2 else (), strict=False
    ):
        numbers = index.reshape(-1).tolist()
        labels = [names[a][i] if a in names else f"{a} {i}" for a, i in zip(axes, numbers, strict=False)]
        panel.set_title(", ".join(labels), fontsize=9, loc="left")
