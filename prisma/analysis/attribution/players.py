"""The players of a game: each patch alone, or segments of several.

Shapes: P patch, S player.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.errors import PrismaError


def players_of(
    segments: Tensor | int | None, grid: tuple[int, int, int], images: int, device: torch.device
) -> Sequence[Tensor]:
    """For each image, which patches each player has: [player, patch], boolean.

    Args:
        segments: None for each patch alone; a number of rectangles; or a label for each patch, [(time,) row, column],
            or with an axis for the image before.
        grid: patches along time, height and width.

    Raises:
        PrismaError: labels of another shape, or more rectangles than patches.
    """
    patches = grid[0] * grid[1] * grid[2]
    if segments is None:
        return [torch.eye(patches, dtype=torch.bool, device=device)] * images
    if isinstance(segments, int):
        return [members(rectangles(segments, grid).to(device))] * images
    shape = grid if grid[0] > 1 else grid[1:]
    if not isinstance(segments, Tensor):
        raise PrismaError(
            f"expected segments to be a number of rectangles, or a tensor of labels {list(shape)}; found {segments!r}"
        )
    labels = segments.to(device)
    if tuple(labels.shape) not in (shape, (images, *shape)) or labels.is_floating_point():
        raise PrismaError(
            f"expected a whole number for each patch {list(shape)}, or {[images, *shape]}; found {list(labels.shape)} "
            f"of {labels.dtype}"
        )
    if labels.ndim == len(shape):
        return [members(labels.flatten())] * images
    return [members(of_image.flatten()) for of_image in labels]


def members(labels_P: Tensor) -> Tensor:
    """[player, patch], boolean: the patches of each label, in the order of the labels."""
    return labels_P.unique()[:, None] == labels_P


def rectangles(count: int, grid: tuple[int, int, int]) -> Tensor:
    """Labels [patch] of `count` rectangles of nearly the same size, arranged as nearly square as it can be."""
    time, height, width = grid
    fits = [(rows, count // rows) for rows in range(1, count + 1) if not count % rows]
    fits = [(rows, columns) for rows, columns in fits if rows <= height and columns <= width]
    if not fits:
        raise PrismaError(f"expected a number of rectangles that fits {height} x {width} patches; found {count}")
    rows, columns = min(fits, key=lambda fit: abs(fit[0] - fit[1]))
    row = torch.arange(height) * rows // height
    column = torch.arange(width) * columns // width
    return (row[:, None] * columns + column).expand(time, -1, -1).flatten()
