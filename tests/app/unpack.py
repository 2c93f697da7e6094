"""Reading what a view sends, the slow way."""

import gzip

import numpy as np
import torch

from prisma.view.browser import View


def read(view: View, name: str) -> torch.Tensor:
    packed = view.arrays[name]
    raw = gzip.decompress(packed.data)
    dtype, scale = ("<u2", 65535) if packed.type == "uint16" else ("<f4", 1)
    return torch.tensor(np.frombuffer(raw, dtype).astype(np.float64) / scale).view(packed.shape)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=8e-6)
