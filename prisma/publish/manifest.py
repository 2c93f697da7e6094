"""The manifest `checkpoints.json`: which run is published, and for every step its label, its commit, and what its
weights compute. It states the hashes of all files of all revisions, so whoever trusts it can check the rest.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import Checkpoint
from prisma.data.transform import Transform
from prisma.errors import PrismaError, shown
from prisma.fields import from_dict
from prisma.publish.commits import FileRecord
from prisma.reading import parse_json
from prisma.repository import MANIFEST

FORMAT = 2
"""What the manifest states as `format`. Version 0.1.0 stated none: its manifest is the list of checkpoints alone."""
IMAGES, CLASSES, DIGITS = 4, 16, 6  # a fingerprint has this many probe images, classes and significant digits
TOLERANCE = 1e-3  # times the largest logit of a fingerprint: far above rounding, far below the next checkpoint

_HASH_IN_MESSAGE = re.compile(r"SHA-256 of (\S+): ([0-9a-f]{64})")

Fingerprint = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Entry:
    """One checkpoint in the manifest."""

    step: int
    revision: str  # its label, `step-000128`
    commit: str
    sha256: str  # SHA-256 of model.safetensors
    size: int  # size of model.safetensors in bytes
    fingerprint: Fingerprint  # logits [image, class] of the first probe images
    files: tuple[FileRecord, ...] = ()  # all files of the revision; 0.1.0 stated none

    @classmethod
    def from_dict(cls, values: Any) -> "Entry":
        """Raises PrismaError unless the values are the fields of an entry."""
        return from_dict(cls, values, f"an entry of {MANIFEST}")


@dataclass(frozen=True)
class Yanked:
    """A checkpoint that was taken back: its label is gone, and another label keeps the commit readable."""

    step: int
    revision: str  # the label that it had
    moved_to: str  # the label that it has now
    commit: str
    why: str
    when: str  # the day, 2026-11-26


@dataclass(frozen=True)
class Manifest:
    """The content of `checkpoints.json`."""

    run: str  # the id of the run, as recipe.json and the headers of the weights state it
    steps: tuple[int, ...]  # the schedule: every step that has a checkpoint, or had one and was yanked
    checkpoints: tuple[Entry, ...]  # in step order
    files: tuple[FileRecord, ...] = ()  # all other files of `main`
    yanked: tuple[Yanked, ...] = ()
    replaced_by: str | None = None  # while another run's revisions take the place of this one's: the id of that run
    format: int = FORMAT

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """Raises PrismaError unless these are the bytes of a manifest of this format."""
        try:
            values = parse_json(data.decode(), MANIFEST)
        except UnicodeDecodeError:
            raise PrismaError(f"expected text in UTF-8 in {MANIFEST}; found other bytes") from None
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise PrismaError(
                f"expected format {FORMAT} in {MANIFEST}; found {shown(values.get('format'))}: it was published by "
                "another version of Prisma; publish the run again"
            )
        return from_dict(cls, values, MANIFEST)

    def to_json(self) -> bytes:
        """The bytes of the manifest: one line per entry."""
        return f"{_object({field.name: getattr(self, field.name) for field in fields(self)})}\n".encode()


def message_with(text: str, sha256: str, name: str = MANIFEST) -> str:
    """The message of a commit that writes a manifest: it states the manifest's hash, which anchors all other hashes."""
    return f"{text}. SHA-256 of {name}: {sha256}"


def hash_in(message: str, name: str = MANIFEST) -> str | None:
    """The SHA-256 of the manifest that the message of its commit states; None if it states none."""
    return next((found[2] for found in _HASH_IN_MESSAGE.finditer(message) if found[1] == name), None)


def _object(values: dict[str, Any]) -> str:
    """JSON with one line per field, and one per element of a list of dataclasses."""
    return "{\n" + ",\n".join(f'"{name}": {_value(value)}' for name, value in values.items()) + "\n}"


def _value(value: Any) -> str:
    if isinstance(value, tuple) and any(is_dataclass(element) for element in value):
        return "[\n" + ",\n".join(json.dumps(asdict(element)) for element in value) + "\n]"
    return json.dumps(value)


def fingerprint(checkpoint: Checkpoint, images: Tensor) -> Fingerprint:
    """The logits of a checkpoint on the first probe images [n, channel, height, width], which are in [0, 1].

    Computed in float64, so that all threads, kernels and machines round alike. Converts the model to float64.

    Raises:
        PrismaError: the images do not fit the model, or a logit is not finite.
    """
    config = checkpoint.model.config
    expected = (config.channels, *config.image_sides)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected or not len(images):
        raise PrismaError(f"expected probe images [n, {', '.join(map(str, expected))}]; found {list(images.shape)}")
    x = images[:IMAGES].double()
    if checkpoint.transform:
        x = Transform.from_dict(checkpoint.transform).normalise(x)
    with torch.no_grad():
        logits = checkpoint.model.double()(x)[:, :CLASSES]
    if not logits.isfinite().all():
        raise PrismaError("expected finite logits on the probe images; found infinite ones or NaN")
    return tuple(tuple(_rounded(value) for value in row) for row in logits.tolist())


def agrees(found: Fingerprint, stated: Fingerprint) -> bool:
    """Whether two fingerprints are equal up to TOLERANCE, and so belong to the same weights."""
    pairs = [(a, b) for f, s in zip(found, stated, strict=False) for a, b in zip(f, s, strict=False)]
    same_shape = [len(row) for row in found] == [len(row) for row in stated]
    largest = max((abs(b) for _, b in pairs), default=0.0)
    return same_shape and all(abs(a - b) <= TOLERANCE * largest for a, b in pairs)


def _rounded(value: float) -> float:
    return value if value == 0 else round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
