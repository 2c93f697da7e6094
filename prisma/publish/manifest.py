"""The manifest `checkpoints.json`: every step, its label, its commit, and what its weights compute."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import Checkpoint
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.fields import from_dict
from prisma.repository import MANIFEST

IMAGES, CLASSES, DIGITS = 4, 16, 6  # a fingerprint has this many probe images, classes and significant digits
TOLERANCE = 1e-3  # times the largest logit of a fingerprint: far above rounding, far below the next checkpoint

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

    @classmethod
    def from_dict(cls, values: Any) -> "Entry":
        """Raises PrismaError unless the values are the fields of an entry."""
        return from_dict(cls, values, f"an entry of {MANIFEST}")


def to_json(entries: Sequence[Entry]) -> bytes:
    """The bytes of the manifest: one line per entry, in step order."""
    lines = ",\n".join(json.dumps(asdict(entry)) for entry in sorted(entries, key=lambda entry: entry.step))
    return f'{{"checkpoints": [\n{lines}\n]}}\n'.encode()


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
