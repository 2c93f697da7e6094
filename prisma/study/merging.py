"""Merge the results of shards into one result, and summarise it: shapes, means over images, and a plot.

Shapes: the first axis is "image"; the mean over it and its standard error ignore NaN.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from prisma.analysis.result import Result
from prisma.analysis.statistics import mean_and_error
from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.view.figures.plots import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NUMBERS = 4096  # arrays with more numbers are left out of a summary
COUNTS = ("pairs", "images")  # metadata that count images, and are added up over shards
_AnyResult = TypeVar("_AnyResult", bound=Result)


def merge_results(parts: Sequence[_AnyResult], options: Mapping[str, Any] | None = None) -> _AnyResult:
    """One result from the results of shards: arrays whose first axis is "image" are concatenated.

    Arrays without an image axis must be equal in all shards.

    Args:
        options: the options of the analysis; they replace metadata that differ between shards.

    Raises:
        PrismaError: an array without an image axis differs between shards, or there are no parts.
    """
    if not parts:
        raise PrismaError("expected the results of one shard or more; found none")
    arrays: dict[str, Any] = {}
    for name in (field.name for field in fields(parts[0]) if field.name != "metadata"):
        values = [getattr(part, name) for part in parts]
        if values[0] is not None and parts[0].axes[name][0] == "image":
            arrays[name] = torch.cat(values)
        elif all(_equal(x, values[0]) for x in values):
            arrays[name] = values[0]
        else:
            raise PrismaError(
                f"expected the array {name} of {type(parts[0]).__name__}, which has no image axis, to be equal in all "
                "shards; found different values"
            )
    return type(parts[0])(metadata=_merged_metadata([part.metadata for part in parts], options or {}), **arrays)


def _equal(x: Tensor | None, y: Tensor | None) -> bool:
    return x is y if x is None or y is None else torch.equal(x, y)


def _merged_metadata(parts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that all shards share, with counts of images added up; the options where shards differ."""
    shared = {
        name: sum(part[name] for part in parts) if name in COUNTS else value
        for name, value in parts[0].items()
        if name in COUNTS or all(part[name] == value for part in parts)
    }
    return {**options, **shared}


def summarise(result: Result) -> dict[str, Any]:
    """For each array: its axes, its shape, and its `mean` and `stderr` over images as nested lists.

    An array without an image axis has `values` instead. Lists of more than 4096 numbers are left out. NaN and infinite
    numbers become None.
    """
    summary = {}
    for name, axes in result.axes.items():
        x = result.arrays[name].double()
        numbers = {"values": x}
        if "image" in axes:
            by_image = x.movedim(axes.index("image"), 0)
            numbers = dict(zip(("mean", "stderr"), mean_and_error(by_image), strict=True))
        lists = {
            key: _json_numbers(values.tolist()) for key, values in numbers.items() if values.numel() <= MAX_NUMBERS
        }
        summary[name] = {"axes": list(axes), "shape": list(x.shape), **lists}
    return summary


def _json_numbers(values: Any) -> Any:
    if isinstance(values, list):
        return [_json_numbers(value) for value in values]
    return values if abs(values) < float("inf") else None  # False for NaN too


def save_plot(result: Result, path: Path) -> bool:
    """Save the result's own plot, or else that of the first array whose mean over images can be drawn.

    Returns:
        Whether anything could be drawn.
    """
    first_axes = next(iter(result.axes.values()))
    has_own_plot = first_axes[0] != "image" or type(result).plot is not Result.plot
    plots: list[Callable[[], Figure]] = [partial(_plot_mean, result, name) for name in result.axes]
    for plot in [result.plot, *plots] if has_own_plot else plots:
        with suppress(PrismaError):
            plot().savefig(buffer := io.BytesIO())
            write_atomic(path, buffer.getvalue())
            return True
    return False


def _plot_mean(result: Result, name: str) -> "Figure":
    axes = result.axes[name]
    if axes[0] != "image" or len(axes) == 1:
        raise PrismaError(f"expected an image axis and one axis more to draw the mean of {name}; found {axes}")
    title = f"{result.metadata.get('analysis', '')}: {name}, mean over images".replace("_", " ")
    return draw(mean_and_error(result.arrays[name].double())[0], axes[1:], title=title)
