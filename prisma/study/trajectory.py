"""An analysis over training: its numbers at every checkpoint, and when each of them changed most.

A change point divides the checkpoints into two parts, each with a level of its own, where the two levels leave the
least squared error. Its interval comes from a bootstrap over images, the same images at every checkpoint. A curve that
rises slowly has a change point too: look at `jump`, and at the curve.

Shapes: C checkpoint, B image, N number (of an array, flattened), R draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.result import Result
from prisma.analysis.statistics import mean_and_error
from prisma.errors import PrismaError, nearest, quoted
from prisma.study.merging import MAX_NUMBERS
from prisma.view.figures.charts import draw_stages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 500
LEVEL = 0.95
MOST_LINES = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory(Result):
    """The means of one array of an analysis over the checkpoints of a training.

    `metadata["steps"]` are the steps of the checkpoints, and `metadata["missing"]` those of checkpoints without a
    result, such as one that has diverged: their means are NaN, and change points are looked for among the others.
    `metadata["axes"]`, `metadata["shape"]` and `metadata["names"]`, the names of indices by axis, say what the
    flattened numbers are. A number changed at a checkpoint if `jump_interval` leaves out 0 and `change_interval` is
    narrow.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mean": ("checkpoint", "number"),
        "stderr": ("checkpoint", "number"),
        "change": ("number",),
        "change_interval": ("end", "number"),
        "jump": ("number",),
        "jump_interval": ("end", "number"),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"mean", "stderr", "jump", "jump_interval"})

    mean: Tensor  # over images
    stderr: Tensor
    change: Tensor  # the step of the first checkpoint after the change
    change_interval: Tensor  # [2, number]: the steps between which it stays when other images are drawn
    jump: Tensor  # the level after the change minus that before it
    jump_interval: Tensor

    def plot(self, array: str | None = None) -> "Figure":
        """By default the numbers that move most, by checkpoint."""
        if array is not None:
            return super().plot(array)
        there = self.mean[~self.mean.isnan().all(1)].nan_to_num()
        moved = (there.amax(0) - there.amin(0)).argsort(descending=True, stable=True)
        chosen = sorted(moved[:MOST_LINES].tolist())
        lines = {self.name_of(i): self.mean[None, :, i] for i in chosen}
        steps = self.metadata["steps"]
        title = f"{self.metadata['of']}: {self.metadata['array']}, steps {steps[0]:,} to {steps[-1]:,}"
        return draw_stages(lines, axis="checkpoint", title=title.replace("_", " "))

    def name_of(self, number: int) -> str:
        """What a flattened number is: `score object, layer 1, head 3`."""
        index = torch.unravel_index(torch.tensor(number), self.metadata["shape"] or [1])
        pairs, names = zip(self.metadata["axes"], index, strict=False), self.metadata["names"]
        return ", ".join(f"{axis} {names[axis][i] if axis in names else int(i)}" for axis, i in pairs) or str(
            self.metadata["array"]
        )


def trajectory(results: Mapping[int, Result | None], array: str | None = None, *, seed: int = 0) -> Trajectory:
    """How do the numbers of an analysis change over training, and when?

    Args:
        results: step -> the result of the same analysis of the same images at that checkpoint; None where there is
            none, because the checkpoint has diverged.
        array: which of its arrays, one with an image axis; by default the first that has at most 4,096 numbers per
            image.
        seed: of the bootstrap over images.

    Raises:
        PrismaError: fewer than two checkpoints with results, no such array, or results that differ in shape.
    """
    there = {step: found for step, found in sorted(results.items()) if found is not None}
    if len(there) < 2:
        raise PrismaError(f"expected the results of two checkpoints or more; found {len(there)}")
    steps = list(there)
    first = there[steps[0]]
    name = array_of(first, array)
    values = [found.arrays[name] for found in there.values()]
    for step, x in zip(steps, values, strict=True):
        if x.shape != values[0].shape:
            raise PrismaError(
                f"expected {name} of the shape {list(values[0].shape)} at every checkpoint; found {list(x.shape)} at "
                f"step {step}"
            )
    of = first.axes[name].index("image")
    values_CBN = torch.stack(
        [x.double().movedim(of, 0).flatten(1) if x.ndim > 1 else x.double()[:, None] for x in values]
    )
    means, errors = zip(*(mean_and_error(x) for x in values_CBN), strict=True)
    split, jump, splits, jumps = changes(values_CBN, seed)
    axes = [axis for axis in first.axes[name] if axis != "image"]
    shape = [n for axis, n in zip(first.axes[name], values[0].shape, strict=True) if axis != "image"]
    sizes = dict(zip(axes, shape, strict=True))
    names = {axis: list(known) for axis, known in first.names.items() if sizes.get(axis) == len(known)}
    at, everywhere = torch.tensor(steps), sorted(results)
    place = torch.tensor([everywhere.index(step) for step in steps])
    missing = [step for step in everywhere if step not in there]
    nothing = torch.full((len(everywhere), values_CBN.shape[2]), torch.nan, dtype=torch.float64)
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    return Trajectory(
        metadata={
            "analysis": "trajectory", "of": first.metadata["analysis"], "array": name, "steps": everywhere,
            "missing": missing, "axes": axes, "shape": shape, "names": names, "images": values_CBN.shape[1],
            "seed": seed,
        },
        mean=nothing.index_copy(0, place, torch.stack(means)),
        stderr=nothing.index_copy(0, place, torch.stack(errors)),
        change=at[split],
        change_interval=at[splits.double().quantile(ends, dim=0, interpolation="nearest").long()],
        jump=jump,
        jump_interval=jumps.nanquantile(ends, dim=0),
    )  # fmt: skip


def expect_array(analysis: str, kind: type[Result], array: str | None) -> None:
    """Check what can be known before anything runs: that results of an analysis have an array that is asked for.

    Raises:
        PrismaError: no array with an image axis has this name (the nearest are given), or none has an image axis.
    """
    _named_array(f"an array of {analysis} with an image axis", kind.AXES, array)


def _named_array(wanted: str, axes_of: Mapping[str, Sequence[str]], array: str | None) -> list[str]:
    """The arrays with an image axis. Raises PrismaError: there are none, or not the one that is asked for."""
    with_images = [name for name, axes in axes_of.items() if "image" in axes]
    if not with_images:
        raise PrismaError(f"expected {wanted}, to look for changes in; found none: its arrays are {', '.join(axes_of)}")
    if array is not None and array not in with_images:
        raise PrismaError(f"expected {wanted}; found {quoted(array)}; the nearest: {nearest(array, with_images)}")
    return with_images


def array_of(result: Result, array: str | None) -> str:
    """The array that is asked for, or by default the first with few numbers. Raises PrismaError: there is none."""
    with_images = _named_array("an array with an image axis", result.axes, array)
    if array is None:
        few = [
            name for name in with_images if result.arrays[name].numel() / max(_images(result, name), 1) <= MAX_NUMBERS
        ]
        if not few:
            raise PrismaError(
                f"expected an array with an image axis and at most {MAX_NUMBERS:,} numbers per image; found none in "
                f"{type(result).__name__}, whose arrays are {', '.join(result.axes)}"
            )
        return few[0]
    return array


def _images(result: Result, name: str) -> int:
    return result.arrays[name].shape[result.axes[name].index("image")]


def changes(values_CBN: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(split, jump [number], and both of every draw of images [draw, number]).

    A split c puts the first c checkpoints on one side. Of splits that are equally good the first is taken. An image
    without a number (NaN) is left out of the means.
    """
    images = values_CBN.shape[1]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(images, (DRAWS, images), generator=generator)
    weights_RB = torch.zeros(DRAWS + 1, images, dtype=torch.float64).scatter_add(
        1, torch.cat([torch.arange(images)[None], drawn]), torch.ones(DRAWS + 1, images, dtype=torch.float64)
    )
    splits, jumps = [], []
    for some in values_CBN.split(max(2**22 // (DRAWS * len(values_CBN)), 1), dim=2):
        sums, counts = (
            torch.einsum("rb,cbn->rcn", weights_RB, x) for x in (some.nan_to_num(), (~some.isnan()).double())
        )
        split, jump = _split(sums / counts)
        splits.append(split)
        jumps.append(jump)
    split, jump = torch.cat(splits, 1), torch.cat(jumps, 1)
    return split[0], jump[0], split[1:], jump[1:]


def _split(y_RCN: Tensor) -> tuple[Tensor, Tensor]:
    """The best split of each curve, and the difference of its levels; NaN curves have NaN."""
    n = y_RCN.shape[1]
    first = torch.arange(1, n, dtype=y_RCN.dtype)[:, None]
    before = y_RCN.cumsum(1)[:, :-1]
    after = y_RCN.sum(1, keepdim=True) - before
    low, high = before / first, after / (n - first)
    gain = (first * (n - first) / n * (high - low).square()).nan_to_num(
        -1
    )  # how much less squared error than one level
    best = gain.argmax(1, keepdim=True)
    return best[:, 0] + 1, (high - low).gather(1, best)[:, 0]
