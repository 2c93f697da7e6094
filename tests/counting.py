"""How much a call computes: rows of every call of a kind of module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def counting(kind: type[torch.nn.Module], step: str = "forward") -> Iterator[list[int]]:
    """Rows of every call of a module of this kind, or of one of its steps, while the block lasts.

    For models whose sites are known by then.
    """
    rows: list[int] = []
    forward = getattr(kind, step)

    def counted(self: Any, x: Tensor, *rest: Any) -> Tensor:
        rows.append(len(x))
        return forward(self, x, *rest)

    setattr(kind, step, counted)
    try:
        yield rows
    finally:
        setattr(kind, step, forward)
