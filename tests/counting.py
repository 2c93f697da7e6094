"""How much a call computes: rows of every call of a kind of module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def counting(kind: type[torch.nn.Module]) -> Iterator[list[int]]:
    """Rows of every call of a module of this kind, while the block lasts (for models whose sites are known by then)."""
    rows: list[int] = []
    forward = kind.forward

    def counted(self: Any, x: Tensor, *rest: Any) -> Tensor:
        rows.append(len(x))
        return forward(self, x, *rest)

    kind.forward = counted  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        kind.forward = forward  # type: ignore[method-assign]
