"""Number of weights against accuracy: every model of a search, and the frontier."""

import io
from pathlib import Path

from prisma.files import write_atomic
from prisma.smallest.halving import Found
from prisma.view.figures.plots import STYLE


def draw_frontier(found: Found, title: str, path: Path) -> None:
    """Write a PNG: each model at its number of weights and its lowest accuracy over seeds, and the target as a line."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    ended = [one for one in found.candidates if one.finished]
    given_up = [one for one in found.candidates if one.steps and not one.finished]
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        axes.grid(color="#e6e8eb")
        axes.axhline(found.target, color="#8a8f98", linewidth=1, linestyle="--", label=f"target, {found.target:g}")
        axes.scatter(
            [one.parameters for one in given_up],
            [one.accuracy for one in given_up],
            s=14,
            facecolors="none",
            edgecolors="#a7abb2",
            label="not trained to its end",
        )
        lowest = [min(one.finished.values()) for one in ended]
        axes.scatter([one.parameters for one in ended], lowest, s=18, color="#30638e", label="trained to its end")
        front = found.frontier
        axes.plot(
            [one.parameters for one in front],
            [min(one.finished.values()) for one in front],
            color="#30638e",
            linewidth=1.4,
            drawstyle="steps-post",
        )
        if (best := found.smallest) is not None:
            axes.scatter([best.parameters], [min(best.finished.values())], s=70, color="#d1495b", zorder=3)
            axes.annotate(
                f"{best.name}\n{best.parameters:,} weights",
                (best.parameters, min(best.finished.values())),
                xytext=(0, -12),
                textcoords="offset points",
                ha="center",
                va="top",
                color="#d1495b",
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel("weights")
        axes.set_ylabel("test accuracy, lowest of the seeds")
        axes.set_title(f"{title}: the smallest model", loc="left", fontweight="bold", color="#1f2328")
        figure.legend(loc="outside lower center", ncols=3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())
