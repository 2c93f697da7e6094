"""The power of each frequency, as a panel of bars for each thing that has one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prisma.errors import PrismaError
from prisma.view.figures.charts import COLOURS
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OTHERS = "#b6bcc6"


def draw_frequencies(shares: Mapping[str, Tensor], keys: Sequence[int], *, title: str = "") -> "Figure":
    """A bar for each frequency, 1 to the left; the key frequencies are coloured and numbered.

    Args:
        shares: name -> [frequency], the share of each.
        keys: the key frequencies, from 1.

    Raises:
        PrismaError: nothing to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not shares or any(x.ndim != 1 or not len(x) for x in shares.values()):
        raise PrismaError(f"expected shares [frequency]; found { {n: list(x.shape) for n, x in shares.items()} }")
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.9 * len(shares) + 0.6), dpi=150, layout="constrained")
        panels = figure.subplots(len(shares), sharex=True, squeeze=False)[:, 0]
        for panel, (name, values) in zip(panels, shares.items(), strict=True):
            x = values.detach().double().cpu().nan_to_num()
            bars = panel.bar(range(1, len(x) + 1), x.tolist(), color=OTHERS)
            for k in keys:
                bars[k - 1].set_color(COLOURS[0])
                panel.annotate(str(k), (k, float(x[k - 1])), ha="center", va="bottom", fontsize=7)
            panel.set_title(name, loc="left", fontsize=9)
            panel.set_ylabel("share")
            panel.margins(y=0.15)
            panel.set_xlim(0.3, len(x) + 0.7)
        panels[-1].set_xlabel("frequency; key frequencies in colour")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure
