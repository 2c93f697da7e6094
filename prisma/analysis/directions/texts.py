"""Directions of a model's output that have a name: texts of a CLIP, classes, or any that are given; and the output.

The output is a vector of the last linear space of a model, of which there are two:

    logits   what the model returns; of a CLIP's image tower its embedding, before it is scaled to unit length
    pooled   what the head reads; a class's direction there is its row of the head's matrix

Shapes: X text (or class), F feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.errors import PrismaError, quoted
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.pretrained.zero_shot import PromptHead
from prisma.vit import ViT

SPACES = ("logits", "pooled")


@dataclass(frozen=True, eq=False)
class Texts:
    """Unit directions [text, feature] of a space, each with a name."""

    directions: Tensor
    names: tuple[str, ...]
    space: str
    own: bool  # whether they are the model's own classes

    @classmethod
    def of(
        cls, model: ViT, directions: Tensor | None, names: Sequence[str] | None = None, space: str | None = None
    ) -> "Texts":
        """The given directions, or the model's own: the prompts of a zero-shot CLIP, or the classes' rows of the head.

        Raises:
            PrismaError: a model without classes and no directions; directions of another width, of zeros, or fewer than
                two; not a name for each; or no such space.
        """
        own = directions is None
        chosen = space or ("pooled" if own and not isinstance(model.readout.head, PromptHead) else "logits")
        if chosen not in SPACES:
            raise PrismaError(f"expected space to be {' or '.join(SPACES)}; found {chosen!r}")
        found = _own(model, chosen) if directions is None else directions
        width = _width(model, chosen)
        if found.ndim != 2 or found.shape[1] != width or len(found) < 2 or not found.any(1).all():
            raise PrismaError(
                f"expected two directions or more [text, {width}] of the model's {chosen}, none of them zero; found "
                f"{list(found.shape)}"
            )
        given = tuple(f"{'class' if own else 'direction'} {i}" for i in range(len(found))) if names is None else names
        if isinstance(given, str) or not all(isinstance(name, str) for name in given):
            raise PrismaError(f"expected names as a list of texts; found {quoted(given)}")
        if len(given) != len(found):
            raise PrismaError(f"expected a name for each of {len(found)} directions; found {len(given)}")
        return cls(F.normalize(found.double(), dim=1), tuple(given), chosen, own)

    def labels(self, classes: Sequence[str]) -> Sequence[str]:
        """Their names; of a model's own classes those of `classes`, if there is one for each."""
        return classes if self.own and len(classes) == len(self.names) else self.names


def random_texts(texts: Tensor, generator: torch.Generator) -> Tensor:
    """As many directions, of any direction with the same probability [text, feature]: what chance has."""
    drawn = torch.randn(texts.shape, generator=generator, dtype=torch.float64)
    return F.normalize(drawn, dim=1).to(texts.device)


def output_of(model: ViT, pooled: Tensor, space: str, *, bias: bool = True) -> Tensor:
    """The vector of a space [image, feature] from pooled features; of parts of them, `bias` is False."""
    weight, offset = output_map(model, space)
    found = pooled if weight is None else pooled @ weight.to(pooled).mT
    return found + offset.to(pooled) if bias and offset is not None else found


def output_map(model: ViT, space: str) -> tuple[Tensor | None, Tensor | None]:
    """(matrix [feature, pooled], bias [feature]) from pooled features to a space; None where there is none."""
    head: Any = model.readout.head
    parts = ["readout", "readout.head", *["readout.head.projection"] * isinstance(head, PromptHead)]
    expect_plain(model, parts, "the output as a vector")
    linear = head.projection if isinstance(head, PromptHead) else head
    if space == "pooled" or not isinstance(linear, nn.Linear):
        return None, None
    return exact(linear.weight.detach()), None if linear.bias is None else exact(linear.bias.detach())


def answers(model: ViT, output: Tensor, space: str) -> Tensor:
    """The class with the largest logit [image], from vectors of a space, in a model with classes."""
    head: Any = model.readout.head
    if isinstance(head, PromptHead):
        features = output if space == "logits" else output_of(model, output, "logits")
        return (F.normalize(features, dim=-1) @ exact(head.directions).to(features).mT * head.scale).argmax(-1)
    return (output if space == "logits" else output_of(model, output, "logits")).argmax(-1)


def _width(model: ViT, space: str) -> int:
    head: Any = model.readout.head
    linear = head.projection if isinstance(head, PromptHead) else head
    return linear.out_features if space == "logits" and isinstance(linear, nn.Linear) else model.config.d_pooled


def _own(model: ViT, space: str) -> Tensor:
    head: Any = model.readout.head
    if isinstance(head, PromptHead) and space == "logits":
        return exact(head.directions)
    if isinstance(head, nn.Linear) and space == "pooled":
        expect_plain(model, ["readout", "readout.head"], "which direction stands for a class")
        return exact(head.weight.detach())
    raise PrismaError(
        f"expected directions [text, feature], for a model whose {space} have none of their own; found none: those of "
        "texts are loaded.text(prompts), and a classifier's classes are in space='pooled'"
    )
