"""A dose-response curve with its interval, beside those of controls."""

from typing import TYPE_CHECKING

from torch import Tensor

from prisma.errors import PrismaError
from prisma.view.figures.charts import COLOURS
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_doses(
    doses: Tensor, mean: Tensor, interval: Tensor, controls: Tensor, *, title: str = "", label: str = "metric"
) -> "Figure":
    """A line with a band, and a thin grey line for each control.

    Args:
        doses, mean: [dose]. interval: [2, dose]. controls: [control, dose].

    Raises:
        PrismaError: shapes that do not fit.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    n = len(doses)
    if mean.shape != (n,) or interval.shape != (2, n) or controls.shape[1:] != (n,):
        found = [list(x.shape) for x in (doses, mean, interval, controls)]
        raise PrismaError(
            f"expected doses, mean [dose], interval [2, dose] and controls [control, dose]; found {found}"
        )
    order = doses.argsort().cpu()
    x, y, band, others = (a.detach().double().cpu()[..., order] for a in (doses, mean, interval, controls))
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
        panel = figure.subplots()
        for i, line in enumerate(others):
            panel.plot(x, line, color="#8a8f98", linewidth=0.9, label="random directions" if not i else None)
        panel.fill_between(x, *band, color=COLOURS[0], alpha=0.2, linewidth=0)
        panel.plot(x, y, color=COLOURS[0], marker="o", markersize=3.5, label="the direction, with its interval")
        panel.axvline(0, color="#8a8f98", linewidth=0.8, linestyle="--")
        panel.set(xlabel="dose", ylabel=label)
        figure.legend(loc="outside right upper", fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure
