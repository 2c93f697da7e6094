"""A model as the tabs need it: its checkpoints, its example images, and pictures turned into model input."""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prisma.data.transform import Transform
from prisma.errors import PrismaError, quoted, shown
from prisma.loaded import Loaded
from prisma.view.browser import Packed, fractions

INK = 64  # side of a drawing in pixels, as `prisma/view/browser/assets/images.js` sends it


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that a visitor chose, as model input."""

    caption: str
    x: Tensor  # [channel, height, width], normalised
    example: int = -1  # its index among the examples; -1 for an upload or a drawing


class Subject(ABC):
    """One model with all its checkpoints."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name on the page and in its address."""

    @property
    @abstractmethod
    def steps(self) -> list[int]:
        """The training step of every checkpoint, in order."""

    @property
    @abstractmethod
    def final(self) -> Loaded:
        """The model at the end of training."""

    @abstractmethod
    def _checkpoint(self, index: int) -> Loaded: ...

    @abstractmethod
    def examples(self) -> list[Picture]:
        """Example images, from which a visitor can choose."""

    @abstractmethod
    def thumbnails(self) -> Packed:
        """The examples as small images to show, [image, height, width, channel]."""

    @abstractmethod
    def kinds(self) -> Sequence[Any]:
        """The label of each example: two examples with different labels make a pair for patching."""

    def at(self, index: Any) -> Loaded:
        """The model of checkpoint `index`.

        Raises:
            PrismaError: there is no such checkpoint, it cannot be read, or it is a video model.
        """
        count = len(self.steps)
        if isinstance(index, float) and index.is_integer():
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise PrismaError(f"expected a checkpoint from 0 to {count - 1}; found {quoted(index, 20)}")
        return self._checkpoint(index)

    def index_of(self, step: str) -> int:
        """The checkpoint of a training step. Raises PrismaError if there is none."""
        known = [str(published) for published in self.steps]
        if step not in known:
            raise PrismaError(f"{self.name} publishes the steps {', '.join(known)}; found {step[:20]!r}")
        return known.index(step)

    @property
    def labels(self) -> list[str]:
        """A name for each logit; without classes, the logits are features."""
        config, named = self.final.config, self.final.labels
        what, count = ("class", config.n_classes) if config.n_classes else ("feature", config.d_pooled)
        return [*map(shown, named), *(f"{what} {i}" for i in range(len(named), count))]

    def example(self, index: Any) -> Picture:
        """Raises PrismaError if there is no such example."""
        known = self.examples()
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(known):
            raise PrismaError(f"expected an example from 0 to {len(known) - 1}; found {quoted(index, 20)}")
        return known[index]

    def other_example(self, picture: Picture) -> Picture:
        """The first example with another label than this picture: the default corrupt image."""
        kinds = self.kinds()
        mine = kinds[max(picture.example, 0)]
        return self.example(next((i for i, kind in enumerate(kinds) if kind != mine), 0))

    def upload(self, path: Path) -> Picture:
        """The model input from an image file. Raises PrismaError if it is not an image, or too large."""
        try:
            return Picture("Your image", transform_of(self.final)(path))
        except PrismaError as error:  # the visitor knows the file by its name
            raise PrismaError(str(error).replace(str(path), Path(path).name)) from None

    def drawing(self, ink: Any) -> Picture:
        """The model input from INK x INK bytes in base64, white on black. Raises PrismaError on anything else."""
        try:
            raw = base64.b64decode(ink, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raw = b""
        if len(raw) != INK * INK:
            raise PrismaError(f"expected a drawing of {INK} x {INK} bytes; found {len(raw)} bytes")
        image = np.frombuffer(raw, dtype=np.uint8).reshape(INK, INK)
        return Picture("Your drawing", transform_of(self.final)(image))


def expect_still_images(loaded: Loaded) -> Loaded:
    """Returns its argument. Raises PrismaError if it is a video model."""
    if loaded.config.frames > 1:
        raise PrismaError(f"expected a model for still images; found a video model with {loaded.config.frames} frames")
    return loaded


def transform_of(loaded: Loaded) -> Transform:
    """The preprocessing of a model. Raises PrismaError if Prisma cannot reproduce it."""
    if loaded.transform is None:
        raise PrismaError("this model's files do not specify a preprocessing that Prisma can reproduce")
    return loaded.transform


def pixels(loaded: Loaded, x: Tensor) -> Packed:
    """Model inputs [image, channel, height, width] as images [image, height, width, channel] to show."""
    return fractions(transform_of(loaded).pixels(x).permute(0, 2, 3, 1))


def prefix_names(loaded: Loaded) -> list[str]:
    """A name for each token before the patches."""
    config = loaded.config
    return ["class token"] * config.class_token + [f"register {i}" for i in range(config.registers)]
