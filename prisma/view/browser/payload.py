"""What travels to a viewer in the page: facts as JSON, arrays as gzipped binary files.

Fractions (attention, probabilities) are 16-bit: value * 65535, rounded, so that the error is at most 8e-6 and a layer
of ViT-B/16 weighs under a megabyte. Everything else is float32. Both are little-endian, in C order.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prisma.errors import PrismaError

FULL = 65535
_DTYPES = {"uint16": "<u2", "float32": "<f4"}


@dataclass(frozen=True)
class Packed:
    """One array, as a viewer reads it."""

    type: str  # "uint16": fractions in [0, 1]; "float32": any numbers
    shape: tuple[int, ...]
    data: bytes  # gzipped


@dataclass(frozen=True)
class View:
    """All that a viewer shows. Strings in `facts` may come from anywhere: a viewer sets them as text, never as HTML."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Packed] = field(default_factory=dict)


def fractions(x: Tensor) -> Packed:
    """Numbers in [0, 1] at 16 bits.

    Raises:
        PrismaError: a number is outside, or not a number (a model that has diverged).
    """
    if not bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all()):
        raise PrismaError(f"expected numbers between 0 and 1 to show; found {x.min().item()} to {x.max().item()}")
    return _pack("uint16", (x.detach().double().clamp(0, 1) * FULL).round())


def numbers(x: Tensor) -> Packed:
    """Any finite numbers at 32 bits.

    Raises:
        PrismaError: a number is not finite (a model that has diverged).
    """
    if not bool(x.isfinite().all()):
        raise PrismaError("expected finite numbers to show; found some that are not: has this model diverged?")
    return _pack("float32", x.detach())


def _pack(kind: str, x: Tensor) -> Packed:
    values = x.to("cpu", torch.float64).numpy().astype(_DTYPES[kind])
    return Packed(kind, tuple(x.shape), gzip.compress(values.tobytes(), compresslevel=1, mtime=0))
