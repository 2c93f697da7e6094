"""An image as the phases of its spectrum, whose magnitudes are those of pictures; and pictures to take them from.

Source: Fel et al. 2306.06805, Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
Optimization.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.errors import PrismaError
from prisma.features.colors import expect_pictures
from prisma.features.images import Shape


@dataclass(frozen=True, eq=False)
class MACO:
    """The phases alone: the magnitude of every frequency is that of pictures, so contrast and texture stay natural.

    `x = irfft2(r exp(i phase))`, where r is the mean magnitude of the pictures' spectra.

    Attributes:
        pictures: [n, channel, height, width] in [0, 1], of any size; by default the data given to `visualize`.
            `natural_pictures` has some.
        magnitude: [channel, height, width // 2 + 1], instead of that of pictures.
        lr: the learning rate.
    """

    pictures: Tensor | None = None
    magnitude: Tensor | None = None
    lr: float = 0.2

    def of_data(self, x_NCHW: Tensor | None) -> "MACO":
        """With the magnitude of these images; of those of another size, of their enlarged or reduced versions."""
        if self.magnitude is not None:
            return self
        if x_NCHW is None:
            raise PrismaError("expected data, pictures or a magnitude for MACO; found none of them")
        return replace(self, magnitude=torch.fft.rfft2(x_NCHW, norm="ortho").abs().mean(0))

    def _magnitude(self, shape: Shape) -> Tensor:
        wanted, found = [*shape[:2], shape[2] // 2 + 1], self.magnitude
        if found is None or list(found.shape) != wanted:
            has = "none" if found is None else list(found.shape)
            raise PrismaError(f"expected a magnitude {wanted} for images {list(shape)}; found {has}")
        return found

    def begin(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Numbers for n random images: those of real noise, so that every frequency has a valid phase."""
        noise = torch.fft.rfft2(torch.randn(n, *shape, generator=generator))
        return (noise.angle().contiguous(),)

    def encode(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Numbers for given images: their phases. What else their magnitudes have is not in them."""
        return (torch.fft.rfft2(x_NCHW).angle().contiguous(),)

    def draw(self, numbers: Sequence[Tensor], shape: Shape) -> Tensor:
        """Numbers -> independent colours."""
        spectrum = torch.polar(self._magnitude(shape).to(numbers[0]).expand_as(numbers[0]).contiguous(), numbers[0])
        return torch.fft.irfft2(spectrum, s=shape[1:], norm="ortho")


NATURAL = ("astronaut", "chelsea", "coffee", "rocket", "grass", "gravel", "brick", "camera")
"""Pictures of scikit-image that come with it."""


def natural_pictures(shape: Shape, crops: int = 4, seed: int = 0) -> Tensor:
    """Random square parts of scikit-image's photographs, [n, channel, height, width] in [0, 1]: for MACO and `Colors`.

    Args:
        shape: (channel, height, width) of the result.
        crops: parts of each photograph.

    Raises:
        ImportError: scikit-image is not installed.
    """
    import skimage.data

    generator, found = torch.Generator().manual_seed(seed), []
    for name in NATURAL:
        photo = torch.from_numpy(getattr(skimage.data, name)()).float() / 255
        photo = (photo[..., None] if photo.ndim == 2 else photo).movedim(-1, 0)[None]
        photo = photo.mean(1, keepdim=True) if shape[0] == 1 else photo.expand(-1, shape[0], -1, -1)
        side = min(photo.shape[-2:]) * 2 // 3
        for _ in range(crops):
            top, left = (int(torch.randint(n - side, (), generator=generator)) for n in photo.shape[-2:])
            part = photo[..., top : top + side, left : left + side]
            found.append(F.interpolate(part, size=shape[1:], mode="bilinear", antialias=True))
    return torch.cat(found).clamp(0, 1)


def resized(pictures: Tensor, shape: Shape) -> Tensor:
    """Pictures [n, channel, height, width] at the size of an image. Raises PrismaError: another number of channels."""
    if expect_pictures(pictures).shape[1] != shape[0]:
        raise PrismaError(f"expected pictures with {shape[0]} channels; found {pictures.shape[1]}")
    if pictures.shape[1:] == shape:
        return pictures
    return F.interpolate(pictures, size=shape[1:], mode="bilinear", antialias=True).clamp(0, 1)
