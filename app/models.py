"""The mice of a hub as the app needs them: checkpoints by index, examples, pictures turned into model input."""

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest
from prisma.loaded import Loaded, load
from prisma.repository import PROBE, Published, published_in
from prisma.view import Packed, fractions

N_EXAMPLES = 20
INK = 64  # side of a drawing in pixels, as images.js sends it


@dataclass(frozen=True, eq=False)
class Picture:
    """One input: what the user chose, as the model sees it."""

    caption: str
    x: Tensor  # [channel, height, width], normalised
    example: int = -1  # its index among the examples, if it is one


@dataclass(frozen=True)
class Mouse:
    """One published mouse."""

    published: Published

    @property
    def steps(self) -> list[int]:
        """The training step of every checkpoint, in order."""
        return [int(entry["step"]) for entry in self._checkpoints()]

    def at(self, index: Any) -> Loaded:
        """The model of checkpoint `index`.

        Raises:
            PrismaError: there is no such checkpoint, it cannot be read, or it is not a model of still images.
        """
        entries = self._checkpoints()
        if isinstance(index, float) and index.is_integer():
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise PrismaError(f"expected a checkpoint from 0 to {len(entries) - 1}, found {str(index)[:20]}")
        return self._load(entries[index]["revision"])

    @property
    def final(self) -> Loaded:
        """The model of `main`."""
        return self._load(None)

    def index_of(self, step: str) -> int:
        """Raises PrismaError if no checkpoint was published at this training step."""
        known = [str(published) for published in self.steps]
        if step not in known:
            raise PrismaError(
                f"{self.published.repo} publishes the steps {', '.join(known)}; {step[:20]!r} is not among them"
            )
        return known.index(step)

    def examples(self) -> list[Picture]:
        """The first test images that travel with the mouse."""
        return _examples(self, self.published.file(PROBE))[0]

    def thumbnails(self) -> Packed:
        """The examples to show, [image, height, width, channel]."""
        return _examples(self, self.published.file(PROBE))[1]

    def example(self, index: Any) -> Picture:
        """Raises PrismaError if there is no such example."""
        known = self.examples()
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(known):
            raise PrismaError(f"expected an example from 0 to {len(known) - 1}, found {str(index)[:20]}")
        return known[index]

    def other_example(self, picture: Picture) -> Picture:
        """The first example whose label differs from this picture's: the default of the corrupt run."""
        labels = self.published.probe()[1][:N_EXAMPLES]
        mine = int(labels[max(picture.example, 0)])
        different = [i for i, label in enumerate(labels.tolist()) if label != mine]
        return self.example(different[0] if different else 0)

    def upload(self, path: Path) -> Picture:
        """A picture file. Raises PrismaError if it is not an image or enormous."""
        try:
            return Picture("Your image", _transform(self.final)(path))
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
        return Picture("Your drawing", _transform(self.final)(image))

    def label(self, index: int) -> str:
        labels = self.final.labels
        return labels[index] if index < len(labels) else f"class {index}"

    def _load(self, revision: str | None) -> Loaded:
        folder = self.published.file(CONFIG, revision).parent
        self.published.file(WEIGHTS, revision)
        return _load(folder)

    def _checkpoints(self) -> list[dict[str, Any]]:
        entries = self.published.checkpoints()
        if not entries:
            raise PrismaError(f"{self.published.repo} lists no checkpoints")
        return entries


@lru_cache(maxsize=16)
def _load(snapshot: Path) -> Loaded:
    """By snapshot folder, which names the commit: a label that moves is read anew."""
    loaded = load(snapshot)
    if loaded.config.frames > 1:
        raise PrismaError(f"the app shows models of still images; found one of {loaded.config.frames} frames")
    return loaded


@lru_cache(maxsize=16)
def _examples(mouse: Mouse, snapshot: Path) -> tuple[list[Picture], Packed]:
    images, labels = (x[:N_EXAMPLES] for x in mouse.published.probe())
    inputs = _transform(mouse.final).normalise(images)
    names = [mouse.label(int(label)) for label in labels]
    pictures = [
        Picture(f"Test image {i}, labelled {name}", x, i) for i, (x, name) in enumerate(zip(inputs, names, strict=True))
    ]
    return pictures, fractions(images.permute(0, 2, 3, 1))


def _transform(loaded: Loaded) -> Transform:
    if loaded.transform is None:
        raise PrismaError("this mouse's config.json says nothing of how an image becomes its input (transform)")
    return loaded.transform


def mice(hub: Path | None, model: str | None) -> list[str]:
    """The mice on offer: those of a folder hub, or the one of the Hugging Face Hub.

    Raises:
        PrismaError: no such hub, nothing in it, or the wanted model is not there.
    """
    if hub is None:
        if model is None:
            raise PrismaError("expected a folder hub or the OWNER/NAME of a mouse, found neither")
        return [Published(model).repo]
    known = published_in(hub)
    if not known:
        raise PrismaError(f"expected a published mouse in the hub {hub}, found none; `prisma publish` adds one")
    if model is not None and model not in known:
        raise PrismaError(f"{model} is not published in the hub {hub}; the nearest: {nearest(model, known)}")
    return known


def pixels(loaded: Loaded, x: Tensor) -> Packed:
    """Model inputs [image, channel, height, width] as images [image, height, width, channel] to show."""
    return fractions(_transform(loaded).pixels(x).permute(0, 2, 3, 1))


def prefix_names(loaded: Loaded) -> list[str]:
    """What the tokens before the patches are called."""
    config = loaded.config
    return ["class token"] * config.class_token + [f"register {i}" for i in range(config.registers)]
