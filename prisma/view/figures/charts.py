"""Bar charts with names, and lines over stages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 28
MOST_MARKS = 40
FOR, AGAINST = "#d1495b", "#3b6ea5"  # red is above zero, blue below, as in heat maps
BY_CHANCE = " by chance"
COLOURS = (FOR, AGAINST, "#2a9d5c", "#8e5bb5", "#c98a1b", "#5b616b")


def draw_bars(
    values: Tensor, names: Sequence[str], *, spread: Tensor | None = None, title: str = "", label: str = ""
) -> "Figure":
    """A bar for each value, from top to bottom, with its number.

    If there are more bars than can be read, those with the largest absolute values are kept, in their order, and one
    last bar is the sum of all others.

    Args:
        values: [bar].
        names: a name for each bar.
        spread: [bar], drawn as a thin line to both sides of a bar's end.
        label: label of the axis of values.

    Raises:
        PrismaError: no bars, or not one name for each bar.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if values.ndim != 1 or not len(values) or len(values) != len(names):
        raise PrismaError(f"expected values [bar] and a name for each; found {list(values.shape)} and {len(names)}")
    x, labels = values.detach().double().cpu(), list(names)
    error = None if spread is None else spread.detach().double().cpu()
    if len(x) > MOST_BARS:
        kept = x.abs().topk(MOST_BARS - 1).indices.sort().values
        labels = [labels[i] for i in kept.tolist()] + [f"the other {len(x) - len(kept)}, together"]
        error = None if error is None else torch.cat([error[kept], x.new_full((1,), torch.nan)])
        x = torch.cat([x[kept], (x.sum() - x[kept].sum())[None]])
    room = 0.02 * (x.max().clamp(min=0) - x.min().clamp(max=0)).item()
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.2 * len(x)), dpi=150, layout="constrained")
        panel = figure.subplots()
        bars, numbers = range(len(x)), x.tolist()
        panel.barh(bars, numbers, color=[FOR if v >= 0 else AGAINST for v in numbers], height=0.72)
        ends = numbers if error is None else (x + x.sign() * error.nan_to_num()).tolist()
        if error is not None:
            panel.errorbar(numbers, bars, xerr=error.tolist(), fmt="none", ecolor="#3b4048", elinewidth=0.9)
        for bar, value, end in zip(bars, numbers, ends, strict=True):
            side = 1 if value >= 0 else -1
            panel.text(
                end + side * room, bar, f"{value:z.2f}", va="center", ha="left" if side > 0 else "right", fontsize=7
            )
        panel.axvline(0, color="#8a8f98", linewidth=0.8)
        panel.set_yticks(bars, labels, fontsize=8)
        panel.set(ylim=(len(x) - 0.4, -0.6), xlabel=label)
        panel.margins(x=0.1)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure


def draw_stages(
    lines: Mapping[str, Tensor],
    *,
    chance: Mapping[str, float] | None = None,
    level: float | None = None,
    beside: Mapping[str, Tensor] | None = None,
    title: str = "",
    axis: str = "stage",
) -> "Figure":
    """A line for each name: the mean over images by stage. A single line has a band of 80 % of the images.

    Args:
        lines: name -> [image, stage]; NaN where an image has no value. "NAME by chance" is dashed, in NAME's colour.
        chance: name -> the value of a random answer, drawn as a dashed line in the same colour.
        level: the value of a random answer, where it is the same for all lines.
        beside: name -> [image, layer], the effects of a causal analysis, drawn in a second panel.
        axis: the name of the second axis.

    Raises:
        PrismaError: nothing to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not lines or any(x.ndim != 2 or not x.numel() for x in lines.values()):
        raise PrismaError(f"expected lines [image, {axis}]; found { {n: list(x.shape) for n, x in lines.items()} }")
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.4 if beside else 3.8), dpi=150, layout="constrained")
        panels = figure.subplots(2 if beside else 1, squeeze=False)[:, 0]
        colours = _colours([*lines, *(beside or {})])
        _draw_lines(panels[0], lines, axis, chance or {}, colours)
        if level is not None:
            panels[0].axhline(level, color="#5b616b", linestyle="--", linewidth=0.9, label="chance")
        if beside:
            panels[0].set_title("what can be read", loc="left", fontsize=9)
            panels[1].set_title("what it causes", loc="left", fontsize=9)
            _draw_lines(panels[1], beside, "layer", {}, colours)
            for panel in panels:
                panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
        else:
            figure.legend(loc="outside right upper", fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure


def _colours(names: Sequence[str]) -> dict[str, str]:
    """Name -> a colour, the same for a name in every panel, and for what it is by chance."""
    own = list(dict.fromkeys(name.removesuffix(BY_CHANCE) for name in names))
    return {name: COLOURS[own.index(name.removesuffix(BY_CHANCE)) % len(COLOURS)] for name in names}


def _draw_lines(
    panel: "Axes", lines: Mapping[str, Tensor], axis: str, chance: Mapping[str, float], colours: Mapping[str, str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, values in lines.items():
        x_BS, colour = values.detach().double().cpu(), colours[name]
        stages, marker = range(x_BS.shape[1]), "o" if x_BS.shape[1] <= MOST_MARKS else None
        style = {"linestyle": "--"} if name.endswith(BY_CHANCE) else {"marker": marker}
        panel.plot(stages, x_BS.nanmean(0).numpy(), color=colour, markersize=3, label=name, **style)
        if len(lines) == 1 and len(x_BS) > 1:  # bands of several lines hide each other
            ends = x_BS.nanquantile(torch.tensor([0.1, 0.9]).double(), dim=0).numpy()
            panel.fill_between(stages, *ends, color=colour, alpha=0.15, lw=0, label="80 % of the images")
        if name in chance:
            panel.axhline(chance[name], color=colour, linestyle="--", linewidth=0.9, label=f"{name}{BY_CHANCE}")
    panel.set_xlabel("stage (0 is the embedding)" if axis == "stage" else axis)
    panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    panel.grid(color="#e6e8eb")
