"""A loaded model of another library before its conversion, and the text side of an image-text pair after it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.text import TextTower

ImageSize = int | tuple[int, int] | None
"""In pixels, a side or (height, width); None: the size the source was built for."""


@dataclass(frozen=True)
class Text:
    """The text side of a pair: prompts -> unit vectors in the space of the image tower's logits."""

    model: TextTower
    tokenize: Callable[[Sequence[str]], Tensor]  # prompts -> ids [prompt, context]; raises if a prompt is too long
    logit_scale: float = 1.0  # multiplies the cosine
    logit_bias: float = 0.0  # added to it (SigLIP)

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """Embeddings [prompt, class] of unit length.

        Raises:
            PrismaError: there are no prompts, or a prompt has more tokens than the tower's context.
        """
        texts = [prompts] if isinstance(prompts, str) else prompts
        if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
            raise PrismaError(f"expected a prompt or a list of prompts, as text; found {prompts!r:.80}")
        ids = self.tokenize(list(texts))
        weights = self.model.embed.positions
        return F.normalize(self.model(ids.to(weights.device)), dim=-1)

    def similarity(self, images: Tensor, prompts: str | Sequence[str]) -> Tensor:
        """Zero-shot logits [batch, prompt] of image embeddings [batch, class], which are the image tower's logits."""
        return F.normalize(images, dim=-1) @ self(prompts).T * self.logit_scale + self.logit_bias


@dataclass(frozen=True)
class SourceModel:
    """A model of another library, and everything that belongs to it, before its conversion."""

    module: nn.Module  # its class belongs to a family; in evaluation mode
    transform: Transform | None
    labels: tuple[str, ...] = ()
    text: nn.Module | None = None  # the text tower, or the pair that contains its parts; None if there is none
    pair: dict[str, Any] = field(default_factory=dict)  # tokenize, logit_scale, logit_bias: see Text


def class_names(names: Iterable[Any], n_classes: int) -> tuple[str, ...]:
    """Class names that differ, in the order of the logits; () unless there is one entry for each class.

    A class that its source does not name (null, or something other than text or a number) is `LABEL_7`, as
    transformers calls it. Lists of class names have some twice (ImageNet has two kinds of crane): from the second on,
    the index is added, as in `crane (517)`, so that a name means one class.
    """
    found, taken = [], set[str]()
    for i, value in enumerate(names):
        known = (isinstance(value, str) and value.strip()) or (isinstance(value, int) and not isinstance(value, bool))
        name = str(value) if known else f"LABEL_{i}"
        while name in taken:
            name = f"{name} ({i})"
        taken.add(name)
        found.append(name)
    return tuple(found) if len(found) == n_classes else ()
