"""What timm's VisionTransformer and Eva share: one table of rules, and the reading of their parts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prisma.pretrained.parts import activation, heads_in_halves, n_classes, repeated_heads, there, torn
from prisma.pretrained.rules import Context, Rule, UnsupportedModelError, flat, rules

MLPS = {"Mlp": False, "GluMlp": True, "SwiGLU": True}
"""Class of an MLP -> whether it is gated."""
POOLS = {"token": "class", "avg": "mean", "map": "attention"}
"""timm's word -> ours."""


def mlp_facts(mlp: nn.Module) -> dict[str, Any]:
    """Fields of the configuration that an MLP tells. Raises UnsupportedModelError if it is of no class that we have."""
    kind = type(mlp).__name__
    if kind not in MLPS:
        raise UnsupportedModelError(f"the MLP {kind} is not supported; those that are: {', '.join(MLPS)}")
    return {
        "d_mlp": mlp.fc2.in_features,  # type: ignore[union-attr]
        "activation": activation(mlp.act),  # type: ignore[arg-type]
        "gated_mlp": MLPS[kind],
        "norm_post": there(mlp.norm),  # type: ignore[arg-type]
    }


def embed_facts(module: Any) -> dict[str, Any]:
    """Fields that the patch embedding tells."""
    embed = module.patch_embed
    if type(embed).__name__ != "PatchEmbed":
        raise UnsupportedModelError(
            f"the patch embedding {type(embed).__name__} is not supported: patches must be a linear map of pixels"
        )
    if embed.dynamic_img_pad:
        raise UnsupportedModelError(
            "dynamic_img_pad is not supported: positions must belong to patches of the image alone"
        )
    return {
        "image_size": tuple(embed.img_size),
        "patch_size": tuple(embed.patch_size),
        "cut_edge": torn(embed.img_size, embed.patch_size),
        "channels": embed.proj.in_channels,
        "norm_patches": there(embed.norm),
        "positions": module.pos_embed is not None,
        "norm_embed": there(module.norm_pre),
    }


def readout_facts(module: Any, blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that pooling, final norm and head tell, of a model with the fields `blocks`."""
    if module.global_pool not in POOLS:
        raise UnsupportedModelError(
            f"global_pool={module.global_pool!r} is not supported; those that are: {', '.join(POOLS)}"
        )
    if there(module.norm) and there(module.fc_norm):
        raise UnsupportedModelError("a final norm both before and after pooling is not supported")
    facts: dict[str, Any] = {
        "pool": POOLS[module.global_pool],
        "norm_final": there(module.norm) or there(module.fc_norm),
        "norm_pooled": there(module.fc_norm),
        "n_classes": n_classes(module.head),
    }
    pool = module.attn_pool
    if pool is None:
        return facts
    expected = {"latent_len": 1, "pos_embed": None, "pool": "token", "latent_dim": module.embed_dim}
    wrong = [name for name, value in expected.items() if getattr(pool, name) != value]
    if wrong or there(pool.q_norm) or pool.mlp is None or not there(pool.q) or not there(pool.norm):
        raise UnsupportedModelError(
            "attention pooling of this form is not supported: one latent query, its projection, an MLP"
        )
    if mlp_facts(pool.mlp) != {
        **{x: blocks.get(x, False) for x in mlp_facts(pool.mlp)},
        "d_mlp": pool.mlp.fc2.in_features,
    }:
        raise UnsupportedModelError(
            "attention pooling with an MLP of another kind than that of the blocks is not supported"
        )
    return {**facts, "pool_heads": pool.num_heads, "pool_d_mlp": pool.mlp.fc2.in_features}


def prefix_rule(module: Any, tokens: tuple[str, ...]) -> Rule:
    """The prefix tokens that a model has, in their order, with their positions where those cover them."""
    names = [name for name in tokens if getattr(module, name, None) is not None]
    covered = module.pos_embed is not None and not module.no_embed_class
    return Rule("embed.prefix", (*names, *(["pos_embed"] if covered else []), "patch_embed.proj.weight"), _prefix)


def _prefix(context: Context, *tensors: Tensor) -> Tensor:
    """[prefix, d_model]; the last tensor is there for its precision, in a model without any."""
    *tokens, weight = tensors
    n_prefix = context.config.n_prefix
    if not n_prefix:
        return weight.new_zeros(0, context.config.d_model)
    stacked = torch.cat([token[0] for token in tokens])
    return stacked[:n_prefix] if len(stacked) == n_prefix else stacked[:n_prefix] + stacked[n_prefix:][:n_prefix]


def _patch_positions(context: Context, positions: Tensor) -> Tensor:
    return positions[0, -context.config.n_patches :]


def _qkv(context: Context, *parts: Tensor) -> Tensor:
    """Weights or biases of q, k, v, as one or three; k's bias may be absent (two parts)."""
    config, width = context.config, context.config.n_heads * context.config.d_head
    if len(parts) == 1:
        parts = parts[0].split(width)
    elif len(parts) == 2:
        parts = (parts[0], torch.zeros_like(parts[0]), parts[1])
    q, *kv = parts
    k, v = (repeated_heads(x, config.d_head, config.n_heads) if len(x) < width else x for x in kv)
    if context.facts.get("interleaved"):
        q, k = heads_in_halves(q, config.d_head), heads_in_halves(k, config.d_head)
    return torch.cat([q, k, v])


def _qk_norm(context: Context, weight: Tensor) -> Tensor:
    return heads_in_halves(weight, context.config.d_head) if context.facts.get("interleaved") else weight


def _gate(context: Context, packed: Tensor) -> Tensor:
    return packed.chunk(2)[1 if context.facts["gate_last"] else 0]


def _value(context: Context, packed: Tensor) -> Tensor:
    return packed.chunk(2)[0 if context.facts["gate_last"] else 1]


def _ones(context: Context, like: Tensor) -> Tensor:
    return torch.ones_like(like)


def _row(_: Context, x: Tensor) -> Tensor:
    return x[0]


def _first(_: Context, x: Tensor) -> Tensor:
    return x.chunk(2)[0]


def _second(_: Context, x: Tensor) -> Tensor:
    return x.chunk(2)[1]


def _both(ours: str, theirs: str) -> list[tuple[str, str]]:
    return [(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in ("weight", "bias")]


GATED = rules(
    *((f"blocks.{{l}}.mlp.pre.{kind}", f"blocks.{{l}}.mlp.fc1.{kind}", _gate) for kind in ("weight", "bias")),
    *((f"blocks.{{l}}.mlp.pre_linear.{kind}", f"blocks.{{l}}.mlp.fc1.{kind}", _value) for kind in ("weight", "bias")),
)
"""Of an MLP whose two inner matrices are one; these come before the others."""

TABLE = rules(
    ("embed.patch.weight", "patch_embed.proj.weight", flat),
    ("embed.patch.bias", "patch_embed.proj.bias"),
    ("embed.positions", "pos_embed", _patch_positions),
    *_both("embed.ln_patch", "patch_embed.norm"),
    *_both("embed.ln_pre", "norm_pre"),
    *_both("blocks.{l}.ln1", "blocks.{l}.norm1"),
    *_both("blocks.{l}.ln2", "blocks.{l}.norm2"),
    ("blocks.{l}.attn.qkv.weight", "blocks.{l}.attn.qkv.weight", _qkv),
    ("blocks.{l}.attn.qkv.weight", "blocks.{l}.attn.q_proj.weight blocks.{l}.attn.k_proj.weight "
     "blocks.{l}.attn.v_proj.weight", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.qkv.bias", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.q_bias blocks.{l}.attn.v_bias", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.q_proj.bias blocks.{l}.attn.k_proj.bias "
     "blocks.{l}.attn.v_proj.bias", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.q_proj.bias blocks.{l}.attn.v_proj.bias", _qkv),
    *((f"blocks.{{l}}.attn.{x}_norm.{kind}", f"blocks.{{l}}.attn.{x}_norm.{kind}", _qk_norm)
      for x in "qk" for kind in ("weight", "bias")),
    *_both("blocks.{l}.attn.ln", "blocks.{l}.attn.norm"),
    *_both("blocks.{l}.attn.out", "blocks.{l}.attn.proj"),
    *_both("blocks.{l}.mlp.pre", "blocks.{l}.mlp.fc1_g"),
    *_both("blocks.{l}.mlp.pre_linear", "blocks.{l}.mlp.fc1_x"),
    *_both("blocks.{l}.mlp.pre", "blocks.{l}.mlp.fc1"),
    *_both("blocks.{l}.mlp.ln", "blocks.{l}.mlp.norm"),
    *_both("blocks.{l}.mlp.out", "blocks.{l}.mlp.fc2"),
    ("blocks.{l}.scale1.weight", "blocks.{l}.ls1.gamma"),
    ("blocks.{l}.scale2.weight", "blocks.{l}.ls2.gamma"),
    ("blocks.{l}.scale1.weight", "blocks.{l}.gamma_1"),
    ("blocks.{l}.scale2.weight", "blocks.{l}.gamma_2"),
    ("blocks.{l}.scale2.weight", "blocks.{l}.gamma_1", _ones),  # layer scale of attention alone
    *_both("readout.ln_final", "norm"),
    *_both("readout.ln_final", "fc_norm"),
    ("readout.attention_pool.query", "attn_pool.latent", _row),
    *_both("readout.attention_pool.q", "attn_pool.q"),
    *((f"readout.attention_pool.k.{kind}", f"attn_pool.kv.{kind}", _first) for kind in ("weight", "bias")),
    *((f"readout.attention_pool.v.{kind}", f"attn_pool.kv.{kind}", _second) for kind in ("weight", "bias")),
    *_both("readout.attention_pool.out", "attn_pool.proj"),
    *_both("readout.attention_pool.ln", "attn_pool.norm"),
    *_both("readout.attention_pool.mlp.pre", "attn_pool.mlp.fc1"),
    *_both("readout.attention_pool.mlp.out", "attn_pool.mlp.fc2"),
    *_both("readout.head", "head"),
)  # fmt: skip
