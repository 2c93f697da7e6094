"""From an image as people have it to the tensor a model takes; described by data, so that it travels in config.json."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 40_000_000
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Transform:
    """Callable: a picture -> float32 [channel, height, width], resized, scaled to [0, 1], then (x - mean) / std."""

    size: tuple[int, int]  # (height, width) in pixels
    mean: tuple[float, ...]  # one per channel
    std: tuple[float, ...]

    def __call__(self, image: "Image | np.ndarray | str | Path") -> Tensor:
        """A PIL image, an array [height, width(, channel)] of uint8 or of floats in [0, 1], or a path.

        Colours become grey for a model of one channel, and grey three equal ones; what is transparent becomes white.

        Raises:
            PrismaError: not an image, more than 40 megapixels, or a wrong number of channels.
        """
        from PIL.Image import Resampling

        height, width = self.size
        picture = _opaque(_open(image)).convert(_MODES[len(self.mean)])
        if picture.size != (width, height):
            picture = picture.resize((width, height), Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255).view(height, width, -1)
        return self.normalise(pixels.permute(2, 0, 1))

    def normalise(self, pixels: Tensor) -> Tensor:
        """[..., channel, height, width] in [0, 1] -> what the model takes."""
        return (pixels - _per_channel(self.mean, pixels)) / _per_channel(self.std, pixels)

    def pixels(self, x: Tensor) -> Tensor:
        """Back to [0, 1], for showing: the inverse of `normalise`, clipped."""
        return (x * _per_channel(self.std, x) + _per_channel(self.mean, x)).clamp(0, 1)

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Transform":
        """Raises PrismaError unless the fields are exactly size, mean and std, lists of numbers of matching lengths."""
        match dict(values):
            case {"size": [int(height), int(width)], "mean": [*mean], "std": [*std], **others} if (
                not others
                and len(mean) == len(std)
                and len(mean) in _MODES
                and all(isinstance(number, int | float) for number in (*mean, *std))
                and min(height, width, *std) > 0
            ):
                return cls((height, width), tuple(mean), tuple(std))
        raise PrismaError(
            f"expected a transform with size [h, w], mean and std for 1 or 3 channels, found {dict(values)}"
        )


def _open(image: "Image | np.ndarray | str | Path") -> "Image":
    """An upright picture of 8 bits per channel."""
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray):
        image = Image.fromarray(_eight_bits(image))
    if not isinstance(image, Image.Image | str | Path):
        raise PrismaError(f"expected a PIL image, an array or a path to an image, found {type(image).__name__}")
    try:
        quiet = catch_warnings(action="ignore", category=Image.DecompressionBombWarning)  # said below, as a sentence
        with quiet, nullcontext(image) if isinstance(image, Image.Image) else Image.open(image) as picture:
            found = f"{picture.width:,} x {picture.height:,}"
            fits = 0 < picture.width * picture.height <= MAX_PIXELS  # known before decoding
            upright = ImageOps.exif_transpose(picture) if fits else None
    except Image.DecompressionBombError as error:
        raise PrismaError(f"expected an image of 1 to {MAX_PIXELS:,} pixels at {image}, found far more") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise PrismaError(f"expected an image at {image}, found something else") from error
    if upright is None:
        raise PrismaError(f"expected an image of 1 to {MAX_PIXELS:,} pixels, found {found}")
    if upright.mode.startswith("I;16"):  # convert() would clip it
        return Image.fromarray(np.round(np.asarray(upright) / 257).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise PrismaError(
            f"expected an image of 8 or 16 bits per channel, found mode {upright.mode}, of no known range"
        )
    return upright


def _opaque(picture: "Image") -> "Image":
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """[height, width(, channel)] of uint8, or of floats in [0, 1] -> uint8; one channel has no axis."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise PrismaError(f"expected an image array [height, width] with 1, 3 or 4 channels, found {list(array.shape)}")
    if array.dtype != np.uint8:
        if not (np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1):
            raise PrismaError(
                f"expected an image array of uint8 or of floats in [0, 1], "
                f"found {array.dtype} from {array.min()} to {array.max()}"
            )
        array = np.round(array * 255).astype(np.uint8)
    return array.squeeze(-1) if array.ndim == 3 and array.shape[2] == 1 else array


def _per_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, 1, 1)
