"""ViTs whose heads attend as told: tokens are one-hot vectors, and the q k of a head is the logarithm of a pattern."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma import ViT, ViTConfig
from prisma.attention import Attention
from tests.variants import default_dtype

Heads = Mapping[tuple[int, int], Tensor]
"""(layer, head) -> pattern [query, key], rows summing to 1. Every other head attends to all tokens alike."""


def planted(heads: Heads, *, over_time: Heads | None = None, **config: Any) -> ViT:
    """Attention-only, in float64: no head writes anything, so that every layer sees the one-hot tokens."""
    fields = {"patch_size": 1, "channels": 1, "n_layers": 2, "n_heads": 3, "d_mlp": 0, "n_classes": 2, **config}
    fields |= {"norm": "pre", "norm_kind": "rms"} if config.get("attention") == "divided" else {"norm": "none"}
    tokens = ViTConfig(**fields, d_model=fields["n_heads"]).n_tokens
    with default_dtype(torch.float64):
        model = ViT(ViTConfig(**fields, d_model=tokens, d_head=tokens)).eval()
    one_hot = torch.eye(tokens, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = (1 / tokens + model.config.norm_eps) ** 0.5  # undoes the RMS norm of a one-hot vector
            parameter.fill_(norm if name.split(".")[-2].startswith("ln") else 0)
        model.embed.prefix.copy_(one_hot[: model.config.n_prefix])
        assert model.embed.positions is not None
        model.embed.positions.copy_(one_hot[model.config.n_prefix :])
        for kind, patterns in (("attn", heads), ("time", over_time or {})):
            for (layer, head), pattern_QK in patterns.items():
                attention = model.get_submodule(f"blocks.{layer}.{kind}")
                assert isinstance(attention, Attention)
                q_HDM, k_HDM, _ = attention.qkv.weight.unflatten(0, attention.split).unbind(0)
                scores_QK = pattern_QK.double().log().clamp(min=-60) * tokens**0.5
                prefix = tokens - len(pattern_QK)  # attention over time is of the patches alone
                q_HDM[head] = F.pad(scores_QK.T, (prefix, 0, prefix, 0))
                k_HDM[head] = one_hot
    return model


def row_normal(look_QK: Tensor) -> Tensor:
    """A pattern that spreads a query's attention over the keys where `look` is not 0; over all if there is none."""
    look_QK = look_QK.double()
    nowhere = look_QK.sum(-1, keepdim=True) == 0
    look_QK = look_QK + nowhere
    return look_QK / look_QK.sum(-1, keepdim=True)
