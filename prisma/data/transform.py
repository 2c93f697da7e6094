"""From an image as people have it to the tensor a model takes; described by data, so that it travels in config.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

        Raises:
            PrismaError: not an image, more than 40 megapixels, or a wrong number of channels.
        """
        from PIL.Image import Resampling

        picture = _open(image)
        if picture.width * picture.height > MAX_PIXELS:
            raise PrismaError(
                f"expected an image of at most {MAX_PIXELS:,} pixels, found {picture.width:,} x {picture.height:,}"
            )
        height, width = self.size
        picture = picture.convert(_MODES[len(self.mean)])
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
        """Raises PrismaError unless the fields are exactly size, mean and std, of matching lengths."""
        if set(values) != {"size", "mean", "std"} or len(values["size"]) != 2 or len(values["mean"]) not in _MODES:
            raise PrismaError(
                f"expected a transform with size [h, w], mean and std for 1 or 3 channels, found {dict(values)}"
            )
        return cls(tuple(values["size"]), tuple(values["mean"]), tuple(values["std"]))


def _open(image: "Image | np.ndarray | str | Path") -> "Image":
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise PrismaError(
                f"expected an image array [height, width] with 1, 3 or 4 channels, found {list(image.shape)}"
            )
        array = image if image.dtype == np.uint8 else np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(array.squeeze(-1) if array.ndim == 3 and array.shape[2] == 1 else array)
    try:
        with Image.open(image) as file:
            if file.width * file.height > MAX_PIXELS:  # before decoding
                raise PrismaError(
                    f"expected an image of at most {MAX_PIXELS:,} pixels, found {file.width:,} x {file.height:,}"
                )
            return ImageOps.exif_transpose(file).copy()
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise PrismaError(f"expected an image at {image}, found something else ({error})") from None


def _per_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, 1, 1)
