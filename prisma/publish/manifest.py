"""The manifest `checkpoints.json`: every step, its label, its commit, and what its weights compute."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import Checkpoint
from prisma.data.transform import Transform
from prisma.errors import PrismaError

IMAGES, CLASSES, DIGITS = 4, 16, 6  # of a fingerprint: probe images, classes, significant digits
TOLERANCE = 1e-3  # of the largest logit in a fingerprint: far above rounding, far below another checkpoint

Fingerprint = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Entry:
    """One checkpoint in the manifest."""

    step: int
    revision: str  # its label, `step-000128`
    commit: str
    sha256: str  # of model.safetensors
    size: int  # of model.safetensors, bytes
    fingerprint: Fingerprint  # logits [image, class] of the first probe images

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Entry":
        """Raises PrismaError unless the fields are exactly those of an entry."""
        kinds = {"step": int, "revision": str, "commit": str, "sha256": str, "size": int, "fingerprint": list}
        if not isinstance(values, dict) or {key: type(value) for key, value in values.items()} != kinds:
            raise PrismaError(f"expected a manifest entry of {', '.join(kinds)}, found {str(values)[:80]}")
        try:
            rows = tuple(tuple(float(value) for value in row) for row in values["fingerprint"])
        except (TypeError, ValueError):
            raise PrismaError(
                f"expected rows of numbers as fingerprint of {values['revision']}, found others"
            ) from None
        return cls(**{**values, "fingerprint": rows})


def revision_of(step: int) -> str:
    """128 -> `step-000128`: padded, so that a listing is in step order."""
    return f"step-{step:06d}"


def to_json(entries: Sequence[Entry]) -> bytes:
    """The file: one line per entry, in step order."""
    lines = ",\n".join(json.dumps(asdict(entry)) for entry in sorted(entries, key=lambda entry: entry.step))
    return f'{{"checkpoints": [\n{lines}\n]}}\n'.encode()


def fingerprint(checkpoint: Checkpoint, images: Tensor) -> Fingerprint:
    """What a checkpoint computes on the first probe images [n, channel, height, width], which are in [0, 1].

    Computed in float64, so that threads, kernels and machines round alike. Moves the model to float64.

    Raises:
        PrismaError: the images do not fit the model, or a logit is not finite.
    """
    config = checkpoint.model.config
    expected = (config.channels, *config.image_sides)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected or not len(images):
        raise PrismaError(f"expected probe images [n, {', '.join(map(str, expected))}], found {list(images.shape)}")
    x = images[:IMAGES].double()
    if checkpoint.transform:
        x = Transform.from_dict(checkpoint.transform).normalise(x)
    with torch.no_grad():
        logits = checkpoint.model.double()(x)[:, :CLASSES]
    if not logits.isfinite().all():
        raise PrismaError("expected finite logits on the probe images, found infinite ones or NaN")
    return tuple(tuple(_rounded(value) for value in row) for row in logits.tolist())


def agrees(found: Fingerprint, stated: Fingerprint) -> bool:
    """Whether two fingerprints are of the same weights, up to TOLERANCE."""
    pairs = [(a, b) for f, s in zip(found, stated, strict=False) for a, b in zip(f, s, strict=False)]
    same_shape = [len(row) for row in found] == [len(row) for row in stated]
    largest = max((abs(b) for _, b in pairs), default=0.0)
    return same_shape and all(abs(a - b) <= TOLERANCE * largest for a, b in pairs)


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values: equal for equal weights, whatever the file's header says."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name].contiguous()
        digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
        digest.update(x.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _rounded(value: float) -> float:
    return value if value == 0 else round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
