"""Reading what a view sends, the slow way."""

import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from prisma.view.browser import View

DTYPES = {"uint8": "<u1", "uint16": "<u2", "float32": "<f4"}


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Facts and arrays of a packed view; fractions as numbers in [0, 1], bytes as they are."""
    raw = gzip.decompress(data)
    length = int.from_bytes(raw[:4], "little")
    head = json.loads(raw[4 : 4 + length])
    start = -(-(4 + length) // 8) * 8
    arrays = {}
    for name, array in head["arrays"].items():
        count = int(np.prod(array["shape"]))
        values = np.frombuffer(raw, DTYPES[array["type"]], count, start + array["offset"]).astype(np.float64)
        arrays[name] = torch.tensor(values / (65535 if array["type"] == "uint16" else 1)).view(array["shape"])
    return head["facts"], arrays


def read(view: View, name: str) -> torch.Tensor:
    return unpack(view.pack())[1][name]


def attention(arrays: Mapping[str, torch.Tensor], name: str = "pattern") -> torch.Tensor:
    """[..., query, key] of `attention_rows`."""
    patches = arrays[name] / 255 * arrays[f"{name}.scale"][..., None]
    return torch.cat([arrays[f"{name}.prefix"], patches], -1)


def assert_near(found: torch.Tensor, expected: torch.Tensor, error: float = 8e-6) -> None:
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=error)
