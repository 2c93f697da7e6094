"""What opening a source gives: a live module of its library, and everything that belongs to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.text import TextTower

ImageSize = int | tuple[int, int] | None
"""Pixels, a side or (height, width); None: as the source has it."""


@dataclass(frozen=True)
class Text:
    """The text side of a pair: prompts -> unit vectors in the space of the image tower's logits."""

    model: TextTower
    tokenize: Callable[[Sequence[str]], Tensor]  # prompts -> ids [prompt, context]; raises on one that is too long
    logit_scale: float = 1.0  # multiplies the cosine
    logit_bias: float = 0.0  # added to it (SigLIP)

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """Embeddings [prompt, class] of unit length.

        Raises:
            PrismaError: no prompts, or one that has more tokens than the tower takes.
        """
        texts = [prompts] if isinstance(prompts, str) else prompts
        if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
            raise PrismaError(f"expected a prompt, or a list of them, as text; found {prompts!r:.80}")
        ids = self.tokenize(list(texts))
        weights = self.model.embed.positions
        return F.normalize(self.model(ids.to(weights.device)), dim=-1)

    def similarity(self, images: Tensor, prompts: str | Sequence[str]) -> Tensor:
        """Image embeddings [batch, class] (the image tower's logits) -> zero-shot logits [batch, prompt]."""
        return F.normalize(images, dim=-1) @ self(prompts).T * self.logit_scale + self.logit_bias


@dataclass(frozen=True)
class Opened:
    """A source before it is read."""

    module: nn.Module  # of a class that `families` knows; in evaluation mode
    transform: Transform | None
    labels: tuple[str, ...] = ()
    text: nn.Module | None = None  # the text tower, if the source has one
    pair: dict[str, Any] = field(default_factory=dict)  # tokenize, logit_scale, logit_bias: see Text
