"""The game of a network that is none of Prisma's: its players are squares of pixels.

Shapes: B run, K coalition, P patch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.attribution.games import Game
from prisma.analysis.attribution.questions import values_of_logits
from prisma.analysis.readings import Reading
from prisma.errors import PrismaError

PASS_PIXELS = 32 * 2**20
"""Pixels (of all channels) in one pass of a network that is none of ours, of which nothing else is known."""


@dataclass(frozen=True, eq=False)
class PixelGame(Game):
    """The game of any network of images, whose players are squares of pixels; what is absent is the baseline."""

    patch: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.images.shape[-2:]
        if self.images.ndim != 4 or not self.images.is_floating_point():
            found = f"{list(self.images.shape)} of {self.images.dtype}"
            raise PrismaError(
                f"expected images [batch, channel, height, width] of floating-point pixels; found {found}"
            )
        if any(side % self.patch for side in sides):
            raise PrismaError(
                f"expected a patch that divides the sides of the images, {list(sides)}; found {self.patch}"
            )

    @property
    def n_prefix(self) -> int:
        return 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of squares."""
        height, width = self.images.shape[-2:]
        return height // self.patch, width // self.patch

    @property
    def n_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def per_pass(self) -> int:
        return self.batch or max(PASS_PIXELS // (32 * self.images[0].numel()), 1)

    def of_pixels(self, pixels: Tensor, rows: Tensor) -> Tensor:
        if isinstance(self.target, Reading):
            raise PrismaError("expected a metric of the logits of a network that is none of Prisma's; found a site")
        return values_of_logits(self.target, self.model(pixels), rows, len(self.images))

    def by_token(self, of_pixels: Tensor) -> Tensor:
        rows, columns = self.grid
        return of_pixels.sum(1).unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1)).sum((2, 4)).flatten(1)

    @torch.no_grad()
    def of_runs(self, rows_K: Tensor, present_KP: Tensor) -> Tensor:
        found = []
        for rows, some_KP in zip(rows_K.split(self.per_pass), present_KP.split(self.per_pass), strict=True):
            grid = some_KP.view(-1, 1, *self.grid)
            mask = grid.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
            found.append(self.of_pixels(torch.where(mask, self.images[rows], self.baseline[rows]), rows))
        return torch.cat(found)
