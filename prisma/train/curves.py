"""Loss, accuracy and learning rate over the steps, as pictures. The same numbers and versions give the same bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prisma.files import write_atomic
from prisma.run_folder import CURVE_FORMATS, DYNAMICS
from prisma.train.objectives import CLASSIFICATION, Objective
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"train": "#7a7f87", "test": "#d1495b"}
_LEAST = 1e-12  # nats: what a logarithmic axis shows for a loss of 0
_LOWEST = -1.0  # of an R², which has no least value: below, the curve is cut off
_MARGINS = {"bottom": 0.12, "top": 0.9}  # fixed: to fit them to the text takes longer than to draw the picture
_METADATA: Mapping[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def draw_curves(
    metrics: Sequence[Mapping[str, Any]], folder: Path, title: str, objective: Objective = CLASSIFICATION
) -> None:
    """Write `loss`, the objective's headline (`accuracy`) and `dynamics`, as `.png`, and the first two as `.svg`.

    The axis of steps is logarithmic, because the checkpoints are dense early. `dynamics` has the loss on a logarithmic
    axis too, where a power law is a straight line, and the learning rate of each step.

    Args:
        metrics: the lines of `metrics.jsonl`.

    Raises:
        PrismaError: a file could not be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    evaluated = [line for line in metrics if "test_loss" in line]
    for kind in objective.measures[:2]:
        with rc_context(STYLE):
            figure = Figure(figsize=(6.4, 3.8), dpi=150)
            figure.subplots_adjust(**_MARGINS, left=0.09, right=0.95)
            axes = _prepared(figure.subplots(), f"{title}: {kind}")
            if kind == "loss":
                _draw_batches(axes, metrics)
            _draw(axes, evaluated, kind, objective.loss_axis)
            for format in CURVE_FORMATS:
                _write(figure, folder, f"{kind}.{format}")
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8), dpi=150)
        figure.subplots_adjust(**_MARGINS, left=0.07, right=0.975, wspace=0.2)
        loss, rate = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_dynamics(_prepared(loss, f"{title}: loss, logarithmic"), metrics, evaluated, objective.loss_axis)
        _draw_rate(_prepared(rate, "learning rate"), metrics)
        _write(figure, folder, f"{DYNAMICS}.png")


def _prepared(axes: "Axes", title: str) -> "Axes":
    axes.set_axisbelow(True)
    axes.grid(color="#e6e8eb")
    axes.set_title(title, loc="left", fontweight="bold", color="#1f2328")
    return axes


def _write(figure: "Figure", folder: Path, name: str) -> None:
    buffer, format = io.BytesIO(), name.rpartition(".")[2]
    figure.savefig(buffer, format=format, metadata=_METADATA[format])
    write_atomic(folder / name, buffer.getvalue())


def _draw_batches(axes: "Axes", metrics: Sequence[Mapping[str, Any]]) -> None:
    steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
    axes.plot(steps, losses, color="#c9ccd1", linewidth=0.5, label="each batch")


def _draw_dynamics(
    axes: "Axes", metrics: Sequence[Mapping[str, Any]], evaluated: Sequence[Mapping[str, Any]], unit: str
) -> None:
    axes.set_yscale("log")
    floored = [{**line, "loss": max(line["loss"], _LEAST)} for line in metrics]
    _draw_batches(axes, floored)
    for split, colour in _COLOURS.items():
        values = [max(line[f"{split}_loss"], _LEAST) for line in evaluated]
        steps = [line["step"] for line in evaluated]
        axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=split, zorder=3)
    _logarithmic_steps(axes, metrics[-1]["step"])
    axes.set_yticks(ticks := _round_numbers(*axes.get_ylim()), [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_yticks([], minor=True)
    axes.set_ylabel(unit)
    axes.legend(loc="best")


def _round_numbers(low: float, high: float) -> list[float]:
    """The powers of ten between two numbers; of few, also twice and five times each."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [digit * 10.0**power for power in powers for digit in ((1, 2, 5) if len(powers) < 5 else (1,))]
    return [number for number in numbers if low <= number <= high]


def _draw_rate(axes: "Axes", metrics: Sequence[Mapping[str, Any]]) -> None:
    """The learning rate of each step; the axis of steps is linear, as the schedule is."""
    axes.plot([line["step"] for line in metrics], [line["lr"] for line in metrics], color="#30638e", linewidth=1.6)
    axes.set_xlim(0, metrics[-1]["step"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")


def _logarithmic_steps(axes: "Axes", last: int) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set_xlim(0, last)
    axes.set_xlabel("step")
    ticks = [step for step in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step * 1.5 < last] + [last]
    axes.set_xticks(ticks, [f"{step:,}" for step in ticks], minor=False)
    axes.set_xticks([], minor=True)


def _draw(axes: "Axes", evaluated: Sequence[Mapping[str, Any]], kind: str, unit: str) -> None:
    """Draw train and test at the checkpoints, with the last value of each in the legend."""
    steps, lowest = [line["step"] for line in evaluated], 0.0
    for split, colour in _COLOURS.items():
        values = [line[f"{split}_{kind}"] for line in evaluated]
        lowest = max(min(lowest, *values), _LOWEST)
        label, cut = f"{split}, {values[-1]:.3f} at the end", min(values) < _LOWEST
        axes.plot(
            steps, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=label, clip_on=cut, zorder=3
        )
    _logarithmic_steps(axes, steps[-1])
    if kind == "loss":
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylabel(kind)
        axes.set_ylim(lowest, 1.02)
    axes.legend(loc="best")
