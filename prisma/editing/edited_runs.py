"""Runs of a model whose last map of one MLP is changed, without changing it: for the search of a value.

The change D = R^T A answers every key k of every token with `R^T (A k)` more; `A k`, the response, does not depend on
the wanted changes R, so it is computed once, and only what comes after the map is run again.

Shapes: B image, T token, K key, M d_model.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.editing.keys import key_site
from prisma.numbers import exact
from prisma.runs import attention_stream, resume
from prisma.vit import ViT


@dataclass(frozen=True, eq=False)
class EditedRuns:
    """Some images, up to the map that is edited."""

    model: ViT
    images: Tensor
    layer: int
    keys: Tensor  # [image, token, d_mlp]: what the map reads
    out: Tensor  # [image, token, d_model]: what it answers, its bias included
    stream: Tensor  # what attention reads
    resid_mid: Tensor
    before: Tensor  # [image, class]: logits of the model as it is

    @classmethod
    @torch.no_grad()
    def of(cls, model: ViT, images: Tensor, layer: int) -> "EditedRuns":
        key, stream, mid = key_site(model, layer), attention_stream(model, layer), f"blocks.{layer}.resid_mid"
        logits, acts = record(model, images, [key, stream, mid])
        answer = block_of(model, layer).mlp.out(acts[key])
        return cls(model, images, layer, acts[key], answer, acts[stream], acts[mid], logits)

    def responses(self, u: Tensor, v: Tensor) -> Tensor:
        """[image, token, key]: how much of each wanted change every token gets, for a change `v @ u.T` of unit ones."""
        return exact(self.keys) @ (u @ v.T).to(exact(self.keys))

    def logits(self, responses_BTK: Tensor, changes_KM: Tensor) -> Tensor:
        """[image, class] of the edited model."""
        out = (exact(self.out) + responses_BTK @ changes_KM).to(self.out)  # rounded once, as the model computes
        value = block_of(self.model, self.layer).scale("mlp", out)
        return resume(self.model, self.images, self.layer, "mlp_out", value, self.stream, self.resid_mid)


def block_of(model: ViT, layer: int) -> Any:
    """A block, whose MLP is there."""
    return model.blocks[layer]
