"""Proof that a conversion is exact: our output and residual stream after every layer, compared with the source's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.pretrained.family import Family
from prisma.pretrained.rules import convert
from prisma.runs import record


@dataclass(frozen=True)
class Parity:
    """Largest differences, each divided by the source's largest magnitude: 0 is equal, 1e-6 is rounding in float32."""

    output: float
    residuals: tuple[float, ...]  # after each layer

    @property
    def largest(self) -> float:
        return max(self.output, *self.residuals) if self.residuals else self.output


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> None:
    """Replace every parameter and running statistic by random numbers, so that no part goes untested by being 0 or 1.

    A parameter whose entries are all one (a scale, a norm's weight) is drawn around one. All others are drawn around
    zero, with the spread that keeps the output of a matrix near the size of its input.
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
    """Differences between a module and our conversion of it, on the same inputs, in the module's precision."""
    ours = convert(family.read(module), module.state_dict(), family.name)
    with _outputs(family.blocks(module)) as theirs:
        expected = family.answer(module, images)
    logits, acts = record(ours, images, "blocks.*.resid_post")
    ordered = (family.order(module, their) for their in theirs)
    residuals = tuple(_difference(mine, their) for mine, their in zip(acts.values(), ordered, strict=True))
    return Parity(_difference(logits, expected), residuals)


def _difference(mine: Tensor, theirs: Tensor) -> float:
    if mine.shape != theirs.shape:
        raise PrismaError(f"expected outputs {list(theirs.shape)}, as the source has them; found {list(mine.shape)}")
    found = float((mine - theirs).abs().max() / theirs.abs().max())
    return found if math.isfinite(found) else math.inf  # `max` would ignore a NaN


@contextmanager
def _outputs(blocks: Any) -> Iterator[list[Tensor]]:
    """A list that receives the output of each block, in order, while the context lasts."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def random_inputs(config: ViTConfig | TextConfig, n: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs for a tower, always the same: noise [n, channel, (frame,) height, width], or token ids [n, context]."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(config, TextConfig):
        ids = torch.randint(config.vocabulary, (n, config.context), generator=generator)
        if config.end is not None:  # every prompt has an end token
            ids[torch.arange(n), -1 - torch.arange(n) % config.context] = config.end
        return ids
    return torch.randn(n, *config.input_shape, generator=generator, dtype=dtype)
