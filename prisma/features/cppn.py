"""An image as a small network from a pixel's place to its colour.

Source: Mordvintsev et al. 2018, Differentiable Image Parameterizations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.features.images import OfNothing, Shape
from prisma.fields import check_types


@dataclass(frozen=True)
class CPPN(OfNothing):
    """A small network from a pixel's place to its colour: smooth, and of any resolution.

    Its inputs are (x, y) in [-sqrt 3, sqrt 3], its activations `[atan(h) / 0.67, atan(h) ** 2 / 0.6]`.

    Attributes:
        width, layers: of the network.
        lr: the learning rate.
    """

    width: int = 24
    layers: int = 8
    lr: float = 0.005

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.width, self.layers) < 1:
            raise PrismaError(f"expected a width and layers of at least 1; found {self.width} and {self.layers}")

    def begin(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Numbers for n random images: for each layer its weights and biases."""
        widths = [2, *[2 * self.width] * self.layers]
        found = []
        for i, fan_in in enumerate(widths):
            last = i == self.layers
            out = shape[0] if last else self.width
            found += [
                torch.randn(n, fan_in, out, generator=generator) * (0.0 if last else fan_in**-0.5),
                torch.zeros(n, 1, out),
            ]
        return tuple(found)

    def encode(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Raises PrismaError: a network has no numbers that give a certain image."""
        raise PrismaError("expected a parameterisation that can begin with a picture, such as FFT; found CPPN")

    def draw(self, numbers: Sequence[Tensor], shape: Shape) -> Tensor:
        """Numbers -> independent colours."""
        _, height, width = shape
        y, x = (torch.linspace(-1, 1, side) * math.sqrt(3) * min(1.0, side / max(height, width)) for side in shape[1:])
        places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1).to(numbers[0])
        h = places.expand(len(numbers[0]), -1, -1)
        for i in range(0, len(numbers), 2):
            h = torch.baddbmm(numbers[i + 1], h, numbers[i])
            if i + 2 < len(numbers):
                bent = h.atan()
                h = torch.cat([bent / 0.67, bent.square() / 0.6], -1)
        return h.transpose(1, 2).unflatten(-1, (height, width))
