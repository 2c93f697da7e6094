"""Loss and accuracy over the steps, as PNG and SVG. The same numbers and versions give the same bytes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prisma.files import write_atomic
from prisma.run_folder import CURVE_KINDS
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"train": "#7a7f87", "test": "#d1495b"}
_METADATA: Mapping[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def draw_curves(metrics: Sequence[Mapping[str, Any]], folder: Path, title: str) -> None:
    """Write `loss.png`, `loss.svg`, `accuracy.png` and `accuracy.svg`.

    The axis of steps is logarithmic, because the checkpoints are dense early.

    Args:
        metrics: the lines of `metrics.jsonl`.

    Raises:
        PrismaError: a file could not be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    evaluated = [line for line in metrics if "test_loss" in line]
    for kind in CURVE_KINDS:
        with rc_context(STYLE):
            figure = Figure(figsize=(6.4, 3.8), dpi=150, layout="constrained")
            axes = figure.subplots()
            axes.set_axisbelow(True)
            axes.grid(color="#e6e8eb")
            if kind == "loss":
                steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
                axes.plot(steps, losses, color="#c9ccd1", linewidth=0.5, label="each batch")
            _draw(axes, evaluated, kind)
            axes.set_title(f"{title}: {kind}", loc="left", fontweight="bold", color="#1f2328")
            for format, metadata in _METADATA.items():
                buffer = io.BytesIO()
                figure.savefig(buffer, format=format, metadata=metadata)
                write_atomic(folder / f"{kind}.{format}", buffer.getvalue())


def _draw(axes: "Axes", evaluated: Sequence[Mapping[str, Any]], kind: str) -> None:
    """Draw train and test at the checkpoints, with the last value of each in the legend."""
    steps = [line["step"] for line in evaluated]
    for split, colour in _COLOURS.items():
        values = [line[f"{split}_{kind}"] for line in evaluated]
        label = f"{split}, {values[-1]:.3f} at the end"
        axes.plot(
            steps, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=label, clip_on=False, zorder=3
        )
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set_xlim(0, steps[-1])
    axes.set_xlabel("step")
    ticks = [step for step in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step * 1.5 < steps[-1]] + [steps[-1]]
    axes.set_xticks(ticks, [f"{step:,}" for step in ticks], minor=False)
    axes.set_xticks([], minor=True)
    if kind == "loss":
        axes.set_ylabel("cross-entropy, nats")
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylabel("accuracy")
        axes.set_ylim(0, 1.02)
    axes.legend(loc="best")
