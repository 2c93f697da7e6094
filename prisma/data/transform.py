"""From a picture to the input of a model. A transform is described by data, which `config.json` holds."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings

import numpy as np
import torch
from torch import Tensor

from prisma.contents import contents_of
from prisma.errors import PrismaError
from prisma.fields import from_dict
from prisma.filesystem import given
from prisma.pixels import PixelRange
from prisma.reading import open_file

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 40_000_000
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos")
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Transform:
    """Callable: a picture -> float32 [channel, height, width], resized, scaled to [0, 1], then (x - mean) / std.

    A picture is resized to `size`; or, with `shortest` or `stretch`, it is resized to that, and then its centre is cut.
    """

    size: tuple[int, int]  # (height, width) in pixels
    mean: tuple[float, ...]  # one per channel
    std: tuple[float, ...]
    shortest: int | None = None  # pixels of the shorter side, the other in proportion, rounded down
    stretch: tuple[int, int] | None = None  # (height, width) in pixels, not in proportion
    interpolation: str = "bicubic"
    crop_down: bool = False  # round half of an odd margin down (transformers), else to even (torchvision)

    def __call__(self, image: "Image | np.ndarray | str | Path") -> Tensor:
        """A PIL image, an array [height, width(, channel)] of uint8 or of floats in [0, 1], or a path.

        For a model with one channel, colours become grey; for three, grey becomes three equal channels. Transparent
        pixels become white.

        Raises:
            PrismaError: not an image, more than 40 megapixels, or a wrong number of channels.
        """
        picture = self._cut(self._resize(_opaque(_open(image)).convert(_MODES[len(self.mean)])))
        pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255).view(*self.size, -1)
        return self.normalise(pixels.permute(2, 0, 1))

    def _resize(self, picture: "Image") -> "Image":
        from PIL.Image import Resampling

        height, width = self.stretch or self.size
        if self.shortest is not None:
            scaled = [self.shortest * side // min(picture.size) for side in picture.size]
            width, height = scaled
            if width * height > MAX_PIXELS:
                raise PrismaError(
                    f"expected an image whose sides differ less; found {picture.width:,} x {picture.height:,}, which "
                    f"becomes {width:,} x {height:,} when its shorter side is resized to {self.shortest}"
                )
        if picture.size == (width, height):
            return picture
        return picture.resize((width, height), Resampling[self.interpolation.upper()])

    def _cut(self, picture: "Image") -> "Image":
        """The centre of a picture, of the size `self.size`."""
        height, width = self.size
        if picture.size == (width, height):
            return picture
        margins = (picture.width - width, picture.height - height)
        left, top = (margin // 2 if self.crop_down else round(margin / 2) for margin in margins)
        return picture.crop((left, top, left + width, top + height))

    def resized(self, size: tuple[int, int]) -> "Transform":
        """The same transform to another (height, width); margins that are cut scale in proportion (rounded down)."""
        if size == self.size:
            return self
        grown = max(size) / max(self.size)
        stretch = None
        if self.stretch is not None:
            height, width = (new * whole // old for new, whole, old in zip(size, self.stretch, self.size, strict=True))
            stretch = (height, width)
        shortest = None if self.shortest is None else max(max(size), int(self.shortest * grown))
        return replace(self, size=size, shortest=shortest, stretch=stretch)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels [..., channel, height, width] -> the model's input. White is 1, True, or 255 of bytes; black is 0."""
        pixels = as_floats(pixels)
        return (pixels - _per_channel(self.mean, pixels)) / _per_channel(self.std, pixels)

    def pixels(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`, clipped to [0, 1], for display."""
        return (x * _per_channel(self.std, x) + _per_channel(self.mean, x)).clamp(0, 1)

    @property
    def plain(self) -> "Transform":
        """The same resizing and cutting, and then the pixels in [0, 1] as they are."""
        return replace(self, mean=(0.0,) * len(self.mean), std=(1.0,) * len(self.std))

    @property
    def range(self) -> PixelRange:
        """For each channel, the smallest and the largest number that `normalise` gives."""
        return tuple(((0 - m) / s, (1 - m) / s) for m, s in zip(self.mean, self.std, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, without those that have their default."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Transform":
        """The inverse of `to_dict`.

        Raises:
            PrismaError: an unknown field, a value of a wrong type, or sizes that would need padding.
        """
        return from_dict(cls, values, "the transform")

    def __post_init__(self) -> None:
        if not self._is_possible():
            raise PrismaError(
                f"expected a transform with size [h, w], mean and std for 1 or 3 channels (finite, std positive), and "
                f"perhaps shortest or stretch (no smaller), interpolation ({', '.join(INTERPOLATIONS)}) and crop_down; "
                f"found {self.to_dict()}"
            )

    def _is_possible(self) -> bool:
        (height, width), shortest, stretch = self.size, self.shortest, self.stretch
        numbers = (*self.mean, *self.std)
        return (
            all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
            and len(self.mean) == len(self.std)
            and len(self.mean) in _MODES
            and min(height, width, *self.std) > 0
            and (shortest is None or (stretch is None and shortest >= max(height, width)))
            and (stretch is None or (stretch[0] >= height and stretch[1] >= width))
            and self.interpolation in INTERPOLATIONS
        )


def _open(image: "Image | np.ndarray | str | Path") -> "Image":
    """A picture of 8 bits per channel, turned upright as its EXIF data say."""
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray):
        image = Image.fromarray(_eight_bits(image))
    if not isinstance(image, Image.Image | str | Path):
        raise PrismaError(f"expected a PIL image, an array or a path to an image; found {type(image).__name__}")
    with nullcontext(image) if isinstance(image, Image.Image) else opened(image) as picture:
        if not 0 < picture.width * picture.height <= MAX_PIXELS:  # known before decoding
            found = f"{picture.width:,} x {picture.height:,}"
            raise PrismaError(f"expected an image of 1 to {MAX_PIXELS:,} pixels; found {found}")
        try:
            upright = ImageOps.exif_transpose(picture)
        except Exception as error:  # of any kind: the bytes of a file decide what the parser does
            what = f"one whose pixels cannot be decoded ({type(error).__name__}: {error})"
            if "truncated" in str(error):
                what = "a truncated image: the end of the file is missing"
            raise PrismaError(f"expected an image at {image}; found {what}") from error
    if upright.mode.startswith("I;16"):  # convert() would clip it
        return Image.fromarray(np.round(np.asarray(upright) / 257).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise PrismaError(
            f"expected an image of 8 or 16 bits per channel; found mode {upright.mode}, whose range is unknown"
        )
    return upright


@contextmanager
def opened(path: str | Path) -> "Iterator[Image]":
    """An image file whose header was read. Raises PrismaError if it is no regular file, or no image."""
    from PIL import Image

    if re.match(r"[a-z][a-z0-9+.-]*:/", str(path), re.I):
        raise PrismaError(f"expected an image at {path}; found an address: download the image, and give its path")
    path = given(path)
    with open_file(path, "an image") as file:
        try:
            with catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
                picture = Image.open(file)
        except Image.DecompressionBombError as error:
            raise PrismaError(f"expected an image of 1 to {MAX_PIXELS:,} pixels at {path}; found far more") from error
        except Exception as error:  # of any kind: the bytes of a file decide what the parser does
            raise PrismaError(
                f"expected an image at {path}; found {contents_of(Path(path)) or 'something else'}"
            ) from error
        with picture:
            yield picture


def _opaque(picture: "Image") -> "Image":
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """[height, width(, channel)] of uint8, or of floats in [0, 1] -> uint8; one channel has no axis."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise PrismaError(f"expected an image array [height, width] with 1, 3 or 4 channels; found {list(array.shape)}")
    if array.dtype != np.uint8:
        if not (np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1):
            raise PrismaError(
                f"expected an image array of uint8 or of floats in [0, 1]; "
                f"found {array.dtype} from {array.min()} to {array.max()}"
            )
        array = np.round(array * 255).astype(np.uint8)
    return array.squeeze(-1) if array.ndim == 3 and array.shape[2] == 1 else array


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1], float32 where they are bytes (255 is white) or black and white alone (True is white)."""
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    return pixels.float() if pixels.dtype == torch.bool else pixels


def as_bytes(pixels: Tensor) -> Tensor:
    """Pixels as whole numbers from 0 to 255, uint8, whichever of the three they are."""
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    return pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)


def _per_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, 1, 1)
