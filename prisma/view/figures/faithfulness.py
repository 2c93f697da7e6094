"""Faithfulness of circuits of growing size, beside random circuits of the same sizes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#d1495b", "#30638e")


def draw_faithfulness(
    shares: Sequence[float], curves: Mapping[str, tuple[Tensor, Tensor]], chance: Tensor, title: str
) -> "Figure":
    """A curve for each way to rank edges, with a band over pairs, and the spread of random circuits in grey.

    Args:
        shares: of all edges, on a logarithmic axis.
        curves: name -> (mean [share], ends of the band [2, share]).
        chance: [draw, share]; no draws for none.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), dpi=150, layout="constrained")
        panel = figure.subplots()
        panel.axhline(1, color="#8a8f98", linewidth=0.8, linestyle="--")
        if len(chance):
            draws = chance.detach().double().cpu()
            panel.fill_between(
                shares, draws.amin(0).numpy(), draws.amax(0).numpy(), color="#8a8f98", alpha=0.25, lw=0,
                label=f"random circuits of equal size ({len(draws)})",
            )  # fmt: skip
            panel.plot(shares, draws.mean(0).numpy(), color="#8a8f98", linewidth=0.8)
        for colour, (name, (mean, ends)) in zip(COLOURS, curves.items(), strict=False):
            low, high = ends.detach().double().cpu().numpy()
            panel.fill_between(shares, low, high, color=colour, alpha=0.15, lw=0)
            panel.plot(shares, mean.detach().double().cpu().numpy(), color=colour, marker="o", markersize=3, label=name)
        panel.set_xscale("log")
        panel.set_xlabel("share of all edges")
        panel.set_ylabel("faithfulness")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure
