"""Maps over the patches of images, below the pictures of the same images, with the object's outline on both."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from prisma.errors import PrismaError
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_IMAGES = 12
HINT = "each map has its own scale, from its smallest value (dark) to its largest (bright)"
SIGNED = "each map has its own scale: red is above zero, blue below"


def draw_maps(
    maps: Mapping[str, Tensor],
    pictures: Tensor | None = None,
    masks: Tensor | None = None,
    *,
    names: Sequence[str] = (),
    title: str = "",
    signs: bool = True,
) -> "Figure":
    """A column for each image, a row for the pictures and one for each map. Every map has its own scale.

    Args:
        maps: name -> [image, row, column].
        pictures: [image, channel, height, width] in [0, 1], grey or red, green, blue.
        masks: [image, height, width], true where the object is: its outline is drawn.
        names: names of the images, as titles of the columns.
        signs: whether zero has a meaning: maps with both signs are red above and blue below zero.

    Raises:
        PrismaError: nothing to draw, too many images, or shapes or pictures that do not fit.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    images = _expect_maps(maps, pictures, masks)
    names = names or [f"image {i}" for i in range(images)]
    if len(names) != images:
        raise PrismaError(f"expected {images} names, one for each image; found {len(names)}")
    with rc_context(STYLE):
        rows = len(maps) + (pictures is not None)
        figure = Figure(figsize=(1.2 + 1.25 * images, 0.8 + 1.25 * rows), dpi=150, layout="constrained")
        grid = figure.subplots(rows, images, squeeze=False)
        for row, (name, of_images) in enumerate(_rows(maps, pictures)):
            grid[row, 0].set_ylabel(name)
            for image, values in enumerate(of_images):
                panel, mask = grid[row, image], None if masks is None else masks[image]
                side = _sides(values, pictures, masks)
                panel.imshow(
                    values.numpy(), extent=(0, side[1], side[0], 0), interpolation="nearest", **_look(values, signs)
                )
                panel.set(xticks=[], yticks=[])
                if mask is not None:
                    _outline(panel, mask.detach().cpu().numpy() > 0)
        for panel, name in zip(grid[0], names, strict=True):
            panel.set_title(name, fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
        signed = signs and all(x.min() < 0 < x.max() for x in maps.values())
        figure.supxlabel(SIGNED if signed else HINT, fontsize=7, color="#5b616b")
    return figure


def chosen_images(n: int, images: Sequence[int] | None) -> list[int]:
    """Indices of the images to draw, among `n`; the first six by default.

    Raises:
        PrismaError: an image that does not exist.
    """
    chosen = list(range(min(6, n)) if images is None else images)
    if not chosen or not all(0 <= i < n for i in chosen):
        raise PrismaError(f"expected images from 0 to {n - 1}; found {chosen}")
    return chosen


def draw_images(
    maps: Mapping[str, Tensor],
    pictures: Tensor | None,
    masks: Tensor | None,
    images: Sequence[int],
    *,
    title: str,
    signs: bool = True,
) -> "Figure":
    """`draw_maps` for some images; for a video, a column for each of its times.

    Args:
        maps: name -> [image, (time,) row, column].
        pictures: [image, channel, (frame,) height, width] in [0, 1].
        masks: [image, (frame,) height, width].

    Raises:
        PrismaError: as `draw_maps`, or the number of frames is not a multiple of the number of times.
    """
    names, chosen = [f"image {i}" for i in images], list(images)
    maps = {name: x[chosen] for name, x in maps.items()}
    shown = [None if x is None else x[chosen] for x in (pictures, masks)]
    times = {x.shape[1] for x in maps.values() if x.ndim == 4}
    for n in times:  # a single number, since all maps show the same video
        names = [f"{name}, time {t}" for name in names for t in range(n)]
        maps = {name: x.flatten(0, 1) for name, x in maps.items()}
        shown = [None if x is None else _by_time(x, n) for x in shown]
    return draw_maps(maps, *shown, names=names, title=title, signs=signs)


def _by_time(frames: Tensor, times: int) -> Tensor:
    """[image, ..., frame, height, width] -> the first frame of each time, [image x time, ..., height, width]."""
    if frames.ndim < 4 or frames.shape[-3] % times:
        raise PrismaError(
            f"expected frames in a multiple of {times}, the times of the maps; found {list(frames.shape)}"
        )
    return frames[..., :: frames.shape[-3] // times, :, :].movedim(-3, 1).flatten(0, 1)


def _expect_maps(maps: Mapping[str, Tensor], pictures: Tensor | None, masks: Tensor | None) -> int:
    """How many images there are."""
    shapes = {name: list(x.shape) for name, x in maps.items()}
    lengths = {len(x) for x in (*maps.values(), pictures, masks) if x is not None}
    if len(lengths) != 1 or 0 in lengths or any(len(shape) != 3 for shape in shapes.values()):
        found = f"maps {shapes}" + "".join(
            f", {what} {list(x.shape)}" for what, x in (("pictures", pictures), ("masks", masks)) if x is not None
        )
        raise PrismaError(f"expected maps [image, row, column], pictures and masks of the same images; found {found}")
    if max(lengths) > MOST_IMAGES:
        raise PrismaError(f"a figure has at most {MOST_IMAGES} images; found {max(lengths)}; select some first")
    if masks is not None and (masks.ndim != 3 or (pictures is not None and masks.shape[1:] != pictures.shape[2:])):
        raise PrismaError(
            f"expected masks [image, height, width] with the size of the pictures; found {list(masks.shape)}"
        )
    if pictures is not None and (
        pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or pictures.min() < 0 or pictures.max() > 1
    ):
        raise PrismaError(
            "expected pictures [image, 1 or 3 channels, height, width] in [0, 1], before normalisation; "
            f"found {list(pictures.shape)} from {pictures.min():.2g} to {pictures.max():.2g}"
        )
    return max(lengths)


def _rows(maps: Mapping[str, Tensor], pictures: Tensor | None) -> list[tuple[str, Tensor]]:
    shown = [] if pictures is None else [("picture", pictures.movedim(1, -1).expand(-1, -1, -1, 3))]
    return [(name, x.detach().double().cpu()) for name, x in (*shown, *maps.items())]


def _sides(values: Tensor, pictures: Tensor | None, masks: Tensor | None) -> tuple[int, int]:
    """Height and width of a panel: in pixels if there are pictures or masks."""
    whole = pictures if pictures is not None else masks
    height, width = values.shape[:2] if whole is None else whole.shape[-2:]
    return height, width


def _look(values: Tensor, signs: bool) -> dict[str, Any]:
    """Colour map and limits; a picture [height, width, 3] needs none."""
    seen = values[values.isfinite()]
    if values.ndim == 3 or not seen.numel():
        return {}
    low, high = seen.min().item(), seen.max().item()
    if signs and low < 0 < high:
        return {"cmap": "RdBu_r", "vmin": -max(-low, high), "vmax": max(-low, high)}
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _outline(panel: "Axes", mask: np.ndarray) -> None:
    """The edges between pixels of the object and other pixels."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    lines = [[(x, y), (x + 1, y)] for y, x in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    lines += [[(x, y), (x, y + 1)] for y, x in zip(rows, columns, strict=True)]
    halo = withStroke(linewidth=2.2, foreground="#1f2328")
    panel.add_collection(LineCollection(lines, colors="white", linewidths=1.1, path_effects=[halo]))
