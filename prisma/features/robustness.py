"""Random changes of an image at every step, after which its size is the same: what survives them is no fine noise.

All targets of a batch get the same changes, so that the result of one does not depend on which others there are.

Sources: Olah et al. 2017 (jitter, scale, rotation); Ghiasi et al. 2212.06727 (ColorShift, an offset that fades, an
ensemble of changes); Fel et al. 2306.06805 (crops with noise).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.errors import PrismaError
from prisma.fields import check_types, expect_choices

PADS = {"grey": "zeros", "edge": "border", "mirror": "reflection"}
"""What stands outside of the image -> the word of torch."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Which changes an optimum has to survive. A model has one image size, so every change keeps it.

    Attributes:
        jitter: how far the image moves at most, as a share of its sides.
        zoom: the smallest and the largest factor; (4, 5) are crops of a fourth to a fifth, with a jitter of .4.
        rotate: degrees at most.
        pad: what comes in from outside: "grey", "edge" or "mirror".
        color: of ColorShift, `(x - m) / s` with m and log s drawn from (-color, color) for each channel.
        offset: the spread of a number for each channel that is added; it fades to 0 at the last step.
        noise: the spread of noise for each pixel.
        ensemble: how many changed versions of an image a step averages over.
    """

    jitter: float = 0.05
    zoom: tuple[float, float] = (0.9, 1.1)
    rotate: float = 10.0
    pad: str = "grey"
    color: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    ensemble: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        expect_choices(self, {"pad": tuple(PADS)})
        least = min(self.jitter, self.rotate, self.color, self.offset, self.noise)
        if least < 0 or not 0 < self.zoom[0] <= self.zoom[1] or self.ensemble < 1:
            raise PrismaError(f"expected changes of at least 0, a zoom above 0 and one version or more; found {self}")

    def __call__(self, pixels: Tensor, copies: int, share: float, generator: torch.Generator) -> Tensor:
        """Changed images [ensemble x n, channel, height, width] of n = target x copy images.

        Args:
            copies: images of a target; each copy has its own changes, the same for all targets.
            share: of the steps that were done, from 0 to 1.
        """
        versions, n, channels = self.ensemble, len(pixels), pixels.shape[1]

        def drawn(*shape: int, normal: bool = False) -> Tensor:
            """Random numbers [version x n, ...], from -1 to 1, which repeat from target to target."""
            some = (torch.randn if normal else torch.rand)(versions, 1, copies, *shape, generator=generator)
            some = (some if normal else 2 * some - 1).expand(-1, n // copies, *[-1] * (1 + len(shape)))
            return some.reshape(versions * n, *shape).to(pixels)

        x = pixels.repeat(versions, 1, 1, 1)
        if self.jitter or self.rotate or self.zoom != (1.0, 1.0):
            x = self._moved(x, drawn(4))
        if self.color:
            x = (x - self.color * drawn(channels, 1, 1)) / (self.color * drawn(channels, 1, 1)).exp()
        if self.offset:
            x = x + self.offset * (1 - share) * drawn(channels, 1, 1, normal=True)
        return x + self.noise * drawn(*pixels.shape[1:], normal=True) if self.noise else x

    def _moved(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Moved, zoomed and rotated about the centre, in one resampling.

        Args:
            drawn: [n, 4], from -1 to 1: across, down, zoom, angle.
        """
        height, width = x.shape[-2:]
        low, high = (math.log(factor) for factor in self.zoom)
        zoom = ((low + high) / 2 + (high - low) / 2 * drawn[:, 2]).exp()
        angle = math.radians(self.rotate) * drawn[:, 3]
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        across, down = (2 * self.jitter * drawn[:, i] for i in (0, 1))
        rows = torch.stack(
            [cos, -sin * height / width, across, sin * width / height, cos, down], dim=1
        )  # in shares of half a side, so that a rotation of a rectangle is one
        grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
        grey = 0.5 if self.pad == "grey" else 0.0
        return F.grid_sample(x - grey, grid, padding_mode=PADS[self.pad], align_corners=False) + grey


PLAIN = Robustness(jitter=0.0, zoom=(1.0, 1.0), rotate=0.0)
"""No change at all."""
