"""What travels to a viewer in the page: facts as JSON and arrays as bytes, in one gzipped file.

The file begins with the length of the JSON, 32 bits, then the JSON: `{"facts", "arrays": {name: {"type", "shape",
"offset"}}}`, then the arrays, each at its offset after the JSON, on a multiple of 8 bytes. Arrays are little-endian, in
C order. Probabilities are 16-bit fractions, value * 65535 rounded, so that the error is at most 8e-6. Attention has 8
bits with a scale for each row, so that the error is at most 0.2 % of the largest weight of a patch in its row.
"""

import gzip
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prisma.errors import PrismaError

FULL = 65535
LEVELS = 255
_DTYPES = {"uint8": "<u1", "uint16": "<u2", "float32": "<f4"}


@dataclass(frozen=True)
class Array:
    """One array, as a viewer reads it."""

    type: str  # "uint8": bytes; "uint16": fractions in [0, 1]; "float32": any numbers
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class View:
    """All that a viewer shows. Strings in `facts` may come from anywhere: a viewer sets them as text, never as HTML."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The file. The same view gives the same bytes."""
        places: dict[str, dict[str, Any]] = {}
        offset = 0
        for name, array in self.arrays.items():
            places[name] = {"type": array.type, "shape": array.shape, "offset": offset}
            offset += _padded(len(array.data))
        head = json.dumps({"facts": self.facts, "arrays": places}, separators=(",", ":"), allow_nan=False).encode()
        parts = [struct.pack("<I", len(head)), head, bytes(_padded(4 + len(head)) - 4 - len(head))]
        for array in self.arrays.values():
            parts += [array.data, bytes(_padded(len(array.data)) - len(array.data))]
        return gzip.compress(b"".join(parts), compresslevel=1, mtime=0)


def fractions(x: Tensor) -> Array:
    """Numbers in [0, 1] at 16 bits.

    Raises:
        PrismaError: a number is outside, or not a number (a model that has diverged).
    """
    _expect_fractions(x)
    return _array("uint16", (x.detach().double().clamp(0, 1) * FULL).round())


def levels(x: Tensor) -> Array:
    """Numbers in [0, 1] at 8 bits, for what is only looked at. Raises PrismaError as `fractions`."""
    _expect_fractions(x)
    return _array("uint8", (x.detach().double().clamp(0, 1) * LEVELS).round())


def numbers(x: Tensor, *, missing: bool = False) -> Array:
    """Any finite numbers at 32 bits; with `missing`, NaN stands for a number that does not exist.

    Raises:
        PrismaError: a number is not finite (a model that has diverged).
    """
    if not bool((x.isfinite() | x.isnan() if missing else x.isfinite()).all()):
        raise PrismaError("expected finite numbers to show; found some that are not: has this model diverged?")
    return _array("float32", x.detach())


def pictures(x: Tensor) -> Array:
    """Images [image, channel, height, width] in [0, 1], as bytes [image, height, width, channel]."""
    _expect_fractions(x)
    return _array("uint8", (x.detach().double().clamp(0, 1) * LEVELS).round().permute(0, 2, 3, 1))


def attention_rows(name: str, x: Tensor, prefix: int) -> dict[str, Array]:
    """Attention [..., query, key] as three arrays, whose first `prefix` keys are no patches.

    `name` has the patches [..., query, patch] at 8 bits, as shares of the row's largest patch, which is in `name.scale`
    [..., query]; `name.prefix` [..., query, prefix] has the other keys at 32 bits: a class token that draws most of the
    attention must not leave two levels for the patches.

    Raises:
        PrismaError: as `fractions`.
    """
    _expect_fractions(x)
    x = x.detach().double()
    patches = x[..., prefix:]
    scale = patches.amax(-1)
    shares = (patches / scale.clamp(min=1e-30)[..., None] * LEVELS).round()
    return {
        name: _array("uint8", shares),
        f"{name}.scale": _array("float32", scale),
        f"{name}.prefix": _array("float32", x[..., :prefix]),
    }


def _expect_fractions(x: Tensor) -> None:
    if not bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all()):
        raise PrismaError(f"expected numbers between 0 and 1 to show; found {x.min().item()} to {x.max().item()}")


def _array(kind: str, x: Tensor) -> Array:
    values = x.to("cpu", torch.float64).numpy().astype(_DTYPES[kind])
    return Array(kind, tuple(x.shape), values.tobytes())


def _padded(length: int) -> int:
    return -(-length // 8) * 8
