"""The text side of transformers' image-text pairs: the tokenizer, and what a similarity needs besides the towers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prisma.errors import PrismaError
from prisma.pretrained.family import full_name
from prisma.pretrained.library_calls import library_errors, quiet
from prisma.pretrained.transformers import clip, text

_IMAGE_CLASSES = {name for family in clip.FAMILIES for name in family.classes}
_TEXT_CLASSES = {name for family in text.TEXT_FAMILIES for name in family.classes}
PAIRS = frozenset(_IMAGE_CLASSES & _TEXT_CLASSES)
"""Classes that have both sides."""


def text_side(
    module: nn.Module, tokenizer: str | Path | None, **options: Any
) -> tuple[nn.Module | None, dict[str, Any]]:
    """The module that contains the text tower (None: there is no text side), and the other arguments of `source.Text`.

    Args:
        tokenizer: the folder or name on the Hub from which it is loaded when it is first needed; None: it is unknown.
        options: of AutoTokenizer.from_pretrained, such as revision.
    """
    if full_name(module) not in PAIRS:
        return None, {}
    pair: Any = module
    context = pair.text_model.embeddings.position_embedding.num_embeddings
    return module, {
        "tokenize": Tokenizer(tokenizer, options, context),
        "logit_scale": pair.logit_scale.detach().double().exp().item(),
        "logit_bias": pair.logit_bias.item() if hasattr(pair, "logit_bias") else 0.0,
    }


@dataclass
class Tokenizer:
    """Prompts -> ids [prompt, context], padded to the full context.

    What follows the end token changes nothing in a causal tower, and SigLIP's towers were trained with the padding.
    """

    source: str | Path | None
    options: Mapping[str, Any]
    context: int
    tokenizer: Callable[..., Any] | None = None

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Raises PrismaError: a prompt has more tokens than the tower's context, or there is no tokenizer."""
        self.tokenizer = self.tokenizer or self._load()
        padded = {"padding": "max_length", "max_length": self.context, "truncation": False}
        with quiet():  # the library warns about a long prompt; the error below says more
            rows = self.tokenizer(list(prompts), **padded)["input_ids"] if prompts else []
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) > self.context:
                raise PrismaError(
                    f"expected a prompt of at most {self.context} tokens; found {len(row)} in {prompt[:60]!r}"
                )
        return torch.tensor(rows, dtype=torch.long).view(len(rows), self.context)

    def _load(self) -> Callable[..., Any]:
        if self.source is None:
            raise PrismaError("expected a tokenizer for the text tower; found a module without one")
        from transformers import AutoTokenizer

        with library_errors(f"the tokenizer of {self.source}", hub=not Path(self.source).is_dir() and str(self.source)):
            found = AutoTokenizer.from_pretrained(self.source, trust_remote_code=False, **self.options)
        if found.padding_side != "right":
            raise PrismaError(
                f"expected a tokenizer that pads on the right; found one that pads on the {found.padding_side}"
            )
        return found
