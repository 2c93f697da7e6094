"""What is optimised: numbers that stand for images. Each parameterisation is a small value.

`cppn` and `maco` have two more.

A parameterisation turns its numbers into independent colours [n, channel, height, width], and `Colors` turns those into
pixels in [0, 1]. Its numbers for one image depend on nothing else, so images in a batch stay independent.

Sources: Olah et al. 2017, Feature Visualization (FFT); Mordvintsev et al. 2018, Differentiable Image Parameterizations
(low resolutions).

Shapes: N image, C channel, H height, W width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.errors import PrismaError
from prisma.fields import check_types

Shape = tuple[int, int, int]
"""(channel, height, width)."""
SMALL = 0.01  # the spread of numbers at the start


class Image(Protocol):
    """A parameterisation of images."""

    @property
    def lr(self) -> float:
        """The learning rate of Adam."""

    @property
    def pictures(self) -> Tensor | None:
        """Pictures [n, channel, height, width] in [0, 1] whose colours it takes; None for those of the data."""

    def of_data(self, x_NCHW: Tensor | None) -> "Image":
        """The same, with what it needs of the data, as independent colours."""

    def begin(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Numbers for n random images."""

    def encode(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Numbers for given images, as independent colours."""

    def draw(self, numbers: Sequence[Tensor], shape: Shape) -> Tensor:
        """Numbers -> independent colours [n, channel, height, width]."""


class OfNothing:
    """A parameterisation that needs nothing of the data."""

    pictures: Tensor | None = None

    def of_data(self, x_NCHW: Tensor | None) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True)
class Pixels(OfNothing):
    """Every pixel for itself: the optimum is full of high frequencies. A baseline.

    Attributes:
        lr: the learning rate.
    """

    lr: float = 0.05

    def begin(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Numbers for n random images."""
        return (SMALL * torch.randn(n, *shape, generator=generator),)

    def encode(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Numbers for given images."""
        return (x_NCHW,)

    def draw(self, numbers: Sequence[Tensor], shape: Shape) -> Tensor:
        """Numbers -> independent colours."""
        return numbers[0]


@dataclass(frozen=True)
class FFT(OfNothing):
    """The spectrum, each frequency divided by itself to a power: low frequencies move first.

    `x = irfft2(s / max(f, 1 / max(H, W)) ** decay) / 4`, orthonormal, for frequencies f in cycles per pixel.

    Attributes:
        decay: the power; 0 treats all frequencies alike, 1 is that of natural images.
        lr: the learning rate.
    """

    decay: float = 1.0
    lr: float = 0.05

    def __post_init__(self) -> None:
        check_types(self)

    def _scale(self, shape: Shape) -> Tensor:
        _, height, width = shape
        return frequencies(height, width).clamp(min=1 / max(height, width)) ** -self.decay / 4

    def begin(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Numbers for n random images."""
        return (SMALL * torch.randn(n, *shape[:2], shape[2] // 2 + 1, 2, generator=generator),)

    def encode(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Numbers for given images."""
        shape = (x_NCHW.shape[1], x_NCHW.shape[2], x_NCHW.shape[3])
        spectrum = torch.fft.rfft2(x_NCHW, norm="ortho") / self._scale(shape).to(x_NCHW)
        return (torch.view_as_real(spectrum).contiguous(),)

    def draw(self, numbers: Sequence[Tensor], shape: Shape) -> Tensor:
        """Numbers -> independent colours."""
        scaled = torch.view_as_complex(numbers[0]) * self._scale(shape).to(numbers[0])
        return torch.fft.irfft2(scaled, s=shape[1:], norm="ortho")


@dataclass(frozen=True)
class Pyramid(OfNothing):
    """The sum of images of several resolutions, each half of the one before: an ensemble of low resolutions.

    Attributes:
        levels: how many; the largest has the size of the image.
        lr: the learning rate.
    """

    levels: int = 4
    lr: float = 0.05

    def __post_init__(self) -> None:
        check_types(self)
        if self.levels < 1:
            raise PrismaError(f"expected at least one level; found levels={self.levels}")

    def begin(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Numbers for n random images, the finest level first."""
        channels, *sides = shape
        return tuple(
            SMALL
            * torch.randn(n, channels, *(max(1, math.ceil(side / 2**level)) for side in sides), generator=generator)
            for level in range(self.levels)
        )

    def encode(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Numbers for given images: all in the finest level."""
        coarse = self.begin(len(x_NCHW), (x_NCHW.shape[1], x_NCHW.shape[2], x_NCHW.shape[3]), torch.Generator())[1:]
        return (x_NCHW, *(torch.zeros_like(x).to(x_NCHW) for x in coarse))

    def draw(self, numbers: Sequence[Tensor], shape: Shape) -> Tensor:
        """Numbers -> independent colours."""
        parts = [F.interpolate(x, size=shape[1:], mode="bilinear") for x in numbers[1:]]
        return sum(parts, start=numbers[0])


def frequencies(height: int, width: int) -> Tensor:
    """[height, width // 2 + 1]: how many cycles per pixel each entry of a real spectrum stands for."""
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])


def described(image: Any) -> str:
    """A parameterisation on one line, tensors by their shapes: `FFT(decay=1.0, lr=0.05)`."""
    values = {field.name: getattr(image, field.name) for field in fields(image)}
    words = {name: list(x.shape) if isinstance(x, Tensor) else x for name, x in values.items()}
    return f"{type(image).__name__}({', '.join(f'{name}={value}' for name, value in words.items())})"
