"""Proof that a reading is exact: outputs and every layer's residual stream, ours against the source's own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prisma.pretrained.family import Family
from prisma.pretrained.rules import convert
from prisma.runs import record


@dataclass(frozen=True)
class Parity:
    """Largest differences, each relative to the largest magnitude of the source's value."""

    output: float
    residuals: tuple[float, ...]  # after each layer

    @property
    def largest(self) -> float:
        return max(self.output, *self.residuals) if self.residuals else self.output


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> None:
    """Draw every parameter and every running statistic anew, so that no part passes by being zero or one.

    What starts as a scale (all ones, or a norm's weight) is drawn around one, all else around zero with the spread
    that keeps a matrix's output of order one.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, x in [*module.named_parameters(), *module.named_buffers()]:
        if not x.is_floating_point():
            continue
        if isinstance(x, nn.Parameter) or "running" in name:
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            fan_in = max(1, x[0].numel()) if x.ndim > 1 else 1
            spread = min(0.5, fan_in**-0.5) if x.ndim > 1 else 0.3
            centre = 1.0 if bool((x == 1).all()) else 0.0
            drawn = centre + spread * noise
            x.copy_(drawn.abs() if "running_var" in name else drawn)


@torch.no_grad()
def compare(family: Family, module: nn.Module, images: Tensor) -> Parity:
    """The source's module against our reading of it, on the same images, in the module's precision."""
    ours = convert(family.read(module), module.state_dict(), family.name)
    with _outputs(family.blocks(module)) as theirs:
        expected = family.answer(module, images)
    logits, acts = record(ours, images, "blocks.*.resid_post")
    ordered = (family.order(module, their) for their in theirs)
    residuals = tuple(_difference(mine, their) for mine, their in zip(acts.values(), ordered, strict=True))
    return Parity(_difference(logits, expected), residuals)


def _difference(mine: Tensor, theirs: Tensor) -> float:
    assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
    found = float((mine - theirs).abs().max() / theirs.abs().max())
    return found if math.isfinite(found) else math.inf  # a maximum would pass over what is no number


@contextmanager
def _outputs(blocks: Any) -> Iterator[list[Tensor]]:
    """What each block returned, in order, while the context lasts."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
