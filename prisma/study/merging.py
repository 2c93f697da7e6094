"""Results of shards as one result, and what a summary says of it: shapes, means over images, a picture.

Shapes: the first axis is "image"; the mean over it and its standard error leave out what is NaN.
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

from prisma.analysis.result import Result, mean_and_error
from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.view.figures.plots import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 4096  # of an array in a summary
COUNTS = ("pairs", "images")  # what `metadata` says of numbers of images
_AnyResult = TypeVar("_AnyResult", bound=Result)


def join(parts: Sequence[_AnyResult], options: Mapping[str, Any] | None = None) -> _AnyResult:
    """Arrays whose first axis is "image" one after the other; the others are the same in all shards.

    Args:
        options: what all shards were told; it takes the place of what they say differently, each of its own images.

    Raises:
        PrismaError: an array without images that is not the same in all, or no parts.
    """
    if not parts:
        raise PrismaError("expected shards to join, found none")
    arrays: dict[str, Any] = {}
    for name in (field.name for field in fields(parts[0]) if field.name != "metadata"):
        of_parts = [getattr(part, name) for part in parts]
        if of_parts[0] is not None and parts[0].axes[name][0] == "image":
            arrays[name] = torch.cat(of_parts)
        elif all(_same(x, of_parts[0]) for x in of_parts):
            arrays[name] = of_parts[0]
        else:
            raise PrismaError(f"the array {name} of {type(parts[0]).__name__} has no image axis and differs by shard")
    return type(parts[0])(metadata=_words([part.metadata for part in parts], options or {}), **arrays)


def _same(x: Tensor | None, y: Tensor | None) -> bool:
    return x is y if x is None or y is None else torch.equal(x, y)


def _words(parts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    """What all shards say, numbers of images added up; the options for what they say differently or not at all."""
    said = {
        name: sum(part[name] for part in parts) if name in COUNTS else value
        for name, value in parts[0].items()
        if name in COUNTS or all(part[name] == value for part in parts)
    }
    return {**options, **said}


def summary_of(result: Result) -> dict[str, Any]:
    """For each array its axes and shape, and as nested lists `mean` and `stderr` over images, or `values` without them.

    Lists of more than 4096 numbers are left out. What is no finite number is None.
    """
    found = {}
    for name, axes in result.axes.items():
        x = result.arrays[name].double()
        numbers = dict(zip(("mean", "stderr"), mean_and_error(x), strict=True)) if axes[0] == "image" else {"values": x}
        small = {key: _plain(values.tolist()) for key, values in numbers.items() if values.numel() <= MOST_NUMBERS}
        found[name] = {"axes": list(axes), "shape": list(x.shape), **small}
    return found


def _plain(values: Any) -> Any:
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return values if abs(values) < float("inf") else None  # which NaN is not


def plot(result: Result, path: Path) -> bool:
    """The result's own picture; or else of the first array that one can show, the mean over images -> whether any."""
    first = next(iter(result.axes.values()))
    own = first[0] != "image" or type(result).plot is not Result.plot
    drawings: list[Callable[[], Figure]] = [partial(_mean, result, name) for name in result.axes]
    for drawing in [result.plot, *drawings] if own else drawings:
        with suppress(PrismaError):
            drawing().savefig(buffer := io.BytesIO())
            write_atomic(path, buffer.getvalue())
            return True
    return False


def _mean(result: Result, name: str) -> "Figure":
    axes = result.axes[name]
    if axes[0] != "image" or len(axes) == 1:
        raise PrismaError(f"{name} has no mean over images that makes a picture")
    title = f"{result.metadata.get('analysis', '')}: {name}, mean over images".replace("_", " ")
    return draw(mean_and_error(result.arrays[name].double())[0], axes[1:], title=title)
