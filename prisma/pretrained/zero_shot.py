"""A CLIP's image tower whose classes are prompts.

Its logits are those of the pair, `logit_scale * cosine(image, prompt) + logit_bias`, so every analysis of logits is
about the prompts: edits, sweeps, the logit lens.

Source: Radford et al. 2103.00020; with a bias, Zhai et al. 2303.15343.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.errors import PrismaError
from prisma.outline import outline
from prisma.plain import expect_plain
from prisma.pretrained.source import Text
from prisma.vit import ViT


class PromptHead(nn.Module):
    """Pooled features [batch, features] -> zero-shot logits [batch, prompt]."""

    directions: Tensor  # [prompt, class] of unit length

    def __init__(self, projection: nn.Module, directions: Tensor, scale: float, bias: float) -> None:
        super().__init__()
        self.projection, self.scale, self.bias = projection, scale, bias
        self.register_buffer("directions", directions)

    def forward(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.projection(pooled), dim=-1) @ self.directions.T * self.scale + self.bias


@torch.no_grad()
def zero_shot(model: ViT, text: Text, prompts: Sequence[str]) -> ViT:
    """The image tower `model` with a prompt for each class. The two share every weight, also when one of them is moved.

    It has tensors that its config does not describe, so it cannot be written as a checkpoint.

    Raises:
        PrismaError: there are no prompts, or a prompt has more tokens than the text tower's context.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not len(prompts):
        raise PrismaError(f"expected a list of prompts, one for each class; found {prompts!r:.80}")
    expect_plain(model, ["", "readout"], "a zero-shot classifier, which has a readout of its own")
    directions = text(prompts).to(model.embed.prefix.device)
    shared = outline(replace(model.config, n_classes=len(prompts)))
    shared.embed, shared.blocks = model.embed, model.blocks
    for name, part in model.readout.named_children():
        shared.readout.add_module(name, part)
    head = PromptHead(model.readout.head, directions, text.logit_scale, text.logit_bias)
    shared.readout.add_module("head", head)
    shared.training = model.training
    return shared
