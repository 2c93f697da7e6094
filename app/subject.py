"""What a visitor looks at, as the tabs need it: its states, its examples, pictures turned into model input."""

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
from prisma.errors import PrismaError
from prisma.loaded import Loaded
from prisma.view.browser import Packed, fractions

INK = 64  # side of a drawing in pixels, as images.js sends it


@dataclass(frozen=True, eq=False)
class Picture:
    """One input: what the user chose, as the model sees it."""

    caption: str
    x: Tensor  # [channel, height, width], normalised
    example: int = -1  # its index among the examples, if it is one


class Subject(ABC):
    """One model, in every state that there is of it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As the page and its address have it."""

    @property
    @abstractmethod
    def steps(self) -> list[int]:
        """The training step of every state, in order."""

    @property
    @abstractmethod
    def final(self) -> Loaded:
        """The model that training ended in."""

    @abstractmethod
    def _state(self, index: int) -> Loaded: ...

    @abstractmethod
    def examples(self) -> list[Picture]:
        """Pictures to begin with."""

    @abstractmethod
    def thumbnails(self) -> Packed:
        """The examples to show, [image, height, width, channel]."""

    @abstractmethod
    def kinds(self) -> Sequence[Any]:
        """What each example shows: two of different kinds make a pair for patching."""

    def at(self, index: Any) -> Loaded:
        """The model of state `index`.

        Raises:
            PrismaError: there is no such state, it cannot be read, or it is not a model of still images.
        """
        count = len(self.steps)
        if isinstance(index, float) and index.is_integer():
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise PrismaError(f"expected a checkpoint from 0 to {count - 1}, found {str(index)[:20]}")
        return self._state(index)

    def index_of(self, step: str) -> int:
        """Raises PrismaError if there is no state of this training step."""
        known = [str(published) for published in self.steps]
        if step not in known:
            raise PrismaError(f"{self.name} publishes the steps {', '.join(known)}; {step[:20]!r} is not among them")
        return known.index(step)

    @property
    def labels(self) -> list[str]:
        """A name for each logit; without classes, the logits are features."""
        config, named = self.final.config, self.final.labels
        what, count = ("class", config.n_classes) if config.n_classes else ("feature", config.d_pooled)
        return [*named, *(f"{what} {i}" for i in range(len(named), count))]

    def example(self, index: Any) -> Picture:
        """Raises PrismaError if there is no such example."""
        known = self.examples()
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(known):
            raise PrismaError(f"expected an example from 0 to {len(known) - 1}, found {str(index)[:20]}")
        return known[index]

    def other_example(self, picture: Picture) -> Picture:
        """The first example of another kind than this picture's: the default of the corrupt run."""
        kinds = self.kinds()
        mine = kinds[max(picture.example, 0)]
        return self.example(next((i for i, kind in enumerate(kinds) if kind != mine), 0))

    def upload(self, path: Path) -> Picture:
        """A picture file. Raises PrismaError if it is not an image or enormous."""
        try:
            return Picture("Your image", transform_of(self.final)(path))
        except PrismaError as error:  # the visitor knows the file by its name
            raise PrismaError(str(error).replace(str(path), Path(path).name)) from None

    def drawing(self, ink: Any) -> Picture:
        """White ink on black, base64 of INK x INK bytes. Raises PrismaError if it is anything else."""
        try:
            raw = base64.b64decode(ink, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raw = b""
        if len(raw) != INK * INK:
            raise PrismaError(f"expected a drawing of {INK} x {INK} bytes, found {len(raw)} bytes")
        image = np.frombuffer(raw, dtype=np.uint8).reshape(INK, INK)
        return Picture("Your drawing", transform_of(self.final)(image))


def of_still_images(loaded: Loaded) -> Loaded:
    """The same. Raises PrismaError if it is a model of video."""
    if loaded.config.frames > 1:
        raise PrismaError(f"the app shows models of still images; found one of {loaded.config.frames} frames")
    return loaded


def transform_of(loaded: Loaded) -> Transform:
    """Raises PrismaError if the model has none."""
    if loaded.transform is None:
        raise PrismaError("this model's files say nothing that Prisma can equal of how an image becomes its input")
    return loaded.transform


def pixels(loaded: Loaded, x: Tensor) -> Packed:
    """Model inputs [image, channel, height, width] as images [image, height, width, channel] to show."""
    return fractions(transform_of(loaded).pixels(x).permute(0, 2, 3, 1))


def prefix_names(loaded: Loaded) -> list[str]:
    """What the tokens before the patches are called."""
    config = loaded.config
    return ["class token"] * config.class_token + [f"register {i}" for i in range(config.registers)]
