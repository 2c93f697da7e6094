"""What timm's VisionTransformer and Eva share: a table of rules, the reading of their parts, and their family."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.family import Family
from prisma.pretrained.parts import activation, has_cut_edge, is_present, n_classes, norm
from prisma.pretrained.rules import Context, Conversion, Rule, both, rules
from prisma.pretrained.tensors import chunk, first_row, flat, heads_in_halves, ones, repeated_heads

MLPS = {"Mlp": False, "GluMlp": True, "SwiGLU": True}
"""Class of an MLP -> whether it is gated."""
POOLS = {"token": "class", "avg": "mean", "map": "attention"}
"""timm's name of a pooling -> our name."""


def mlp_fields(mlp: nn.Module) -> dict[str, Any]:
    """Fields of the config that an MLP determines. Raises UnsupportedModelError if its class is unknown."""
    kind = type(mlp).__name__
    if kind not in MLPS:
        raise UnsupportedModelError(f"the MLP {kind} is not supported (supported: {', '.join(MLPS)})")
    return {
        "d_mlp": mlp.fc2.in_features,  # type: ignore[union-attr]
        "activation": activation(mlp.act),  # type: ignore[arg-type]
        "gated_mlp": MLPS[kind],
        "norm_post": is_present(mlp.norm),  # type: ignore[arg-type]
    }


def embed_fields(module: Any) -> dict[str, Any]:
    """Fields of the config that the patch embedding determines."""
    embed = module.patch_embed
    if type(embed).__name__ != "PatchEmbed":
        raise UnsupportedModelError(
            f"the patch embedding {type(embed).__name__} is not supported: tokens must be a linear map of the pixels"
        )
    if embed.dynamic_img_pad:
        raise UnsupportedModelError("dynamic_img_pad is not supported: it adds patches of padding to the image")
    return {
        "image_size": tuple(embed.img_size),
        "patch_size": tuple(embed.patch_size),
        "cut_edge": has_cut_edge(embed.img_size, embed.patch_size),
        "channels": embed.proj.in_channels,
        "norm_patches": is_present(embed.norm),
        "positions": module.pos_embed is not None,
        "norm_embed": is_present(module.norm_pre),
    }


def readout_fields(module: Any, blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the config that pooling, final norm and head determine; `blocks`: those that the blocks determine."""
    if module.global_pool not in POOLS:
        raise UnsupportedModelError(
            f"global_pool={module.global_pool!r} is not supported (supported: {', '.join(POOLS)})"
        )
    if is_present(module.norm) and is_present(module.fc_norm):
        raise UnsupportedModelError("a final norm both before and after pooling is not supported")
    fields: dict[str, Any] = {
        "pool": POOLS[module.global_pool],
        "norm_final": is_present(module.norm) or is_present(module.fc_norm),
        "norm_pooled": is_present(module.fc_norm),
        "n_classes": n_classes(module.head),
    }
    pool = module.attn_pool
    if pool is None:
        return fields
    expected = {"latent_len": 1, "pos_embed": None, "pool": "token", "latent_dim": module.embed_dim}
    wrong = [name for name, value in expected.items() if getattr(pool, name) != value]
    if wrong or is_present(pool.q_norm) or pool.mlp is None or not is_present(pool.q) or not is_present(pool.norm):
        raise UnsupportedModelError(
            "attention pooling of this form is not supported (supported: one projected latent query, a norm and an MLP)"
        )
    if mlp_fields(pool.mlp) != {
        **{x: blocks.get(x, False) for x in mlp_fields(pool.mlp)},
        "d_mlp": pool.mlp.fc2.in_features,
    }:
        raise UnsupportedModelError(
            "attention pooling whose MLP differs in kind from that of the blocks is not supported"
        )
    return {**fields, "pool_heads": pool.num_heads, "pool_d_mlp": pool.mlp.fc2.in_features}


def norm_fields(module: Any) -> dict[str, Any]:
    """Fields of the config that all norms of a model share. Raises UnsupportedModelError if they differ."""
    names = ("norm", "norm1", "norm2")
    norms = (part for name, part in module.named_modules() if name.rpartition(".")[2].endswith(names))
    kind, eps = norm([*norms, module.norm_pre])
    return {"norm_kind": kind, "norm_eps": eps}


def family(name: str, classes: tuple[str, ...], read: Callable[[Any], Conversion]) -> Family:
    """The family of one of timm's two model classes."""
    return Family(
        name=name,
        library="timm",
        classes=classes,
        read=read,
        answer=lambda module, images: module(images),
        blocks=lambda module: list(module.blocks),  # type: ignore[arg-type]
    )


def prefix_rule(module: Any, tokens: tuple[str, ...]) -> Rule:
    """The rule for the prefix tokens that a model has, in their order, and for their positions if they have any."""
    names = [name for name in tokens if getattr(module, name, None) is not None]
    covered = module.pos_embed is not None and not module.no_embed_class
    return Rule("embed.prefix", (*names, *(["pos_embed"] if covered else []), "patch_embed.proj.weight"), _prefix)


def _prefix(context: Context, *tensors: Tensor) -> Tensor:
    """[prefix, d_model]. The last tensor gives the precision for a model without prefix tokens."""
    *tokens, weight = tensors
    n_prefix = context.config.n_prefix
    if not n_prefix:
        return weight.new_zeros(0, context.config.d_model)
    stacked = torch.cat([token[0] for token in tokens])
    return stacked[:n_prefix] if len(stacked) == n_prefix else stacked[:n_prefix] + stacked[n_prefix:][:n_prefix]


def _patch_positions(context: Context, positions: Tensor) -> Tensor:
    return positions[0, -context.config.n_patches :]


def _qkv(context: Context, *parts: Tensor) -> Tensor:
    """Weights or biases of q, k and v: one tensor, three, or two (k has no bias)."""
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


GATED = rules(
    *both("blocks.{l}.mlp.pre", "blocks.{l}.mlp.fc1", make=_gate),
    *both("blocks.{l}.mlp.pre_linear", "blocks.{l}.mlp.fc1", make=_value),
)
"""Rules for a gated MLP whose two inner matrices are one tensor; they come before those of TABLE."""

TABLE = rules(
    ("embed.patch.weight", "patch_embed.proj.weight", flat),
    ("embed.patch.bias", "patch_embed.proj.bias"),
    ("embed.positions", "pos_embed", _patch_positions),
    *both("embed.ln_patch", "patch_embed.norm"),
    *both("embed.ln_pre", "norm_pre"),
    *both("blocks.{l}.ln1", "blocks.{l}.norm1"),
    *both("blocks.{l}.ln2", "blocks.{l}.norm2"),
    ("blocks.{l}.attn.qkv.weight", "blocks.{l}.attn.qkv.weight", _qkv),
    ("blocks.{l}.attn.qkv.weight", "blocks.{l}.attn.q_proj.weight blocks.{l}.attn.k_proj.weight "
     "blocks.{l}.attn.v_proj.weight", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.qkv.bias", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.q_bias blocks.{l}.attn.v_bias", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.q_proj.bias blocks.{l}.attn.k_proj.bias "
     "blocks.{l}.attn.v_proj.bias", _qkv),
    ("blocks.{l}.attn.qkv.bias", "blocks.{l}.attn.q_proj.bias blocks.{l}.attn.v_proj.bias", _qkv),
    *both("blocks.{l}.attn.q_norm", "blocks.{l}.attn.q_norm", make=_qk_norm),
    *both("blocks.{l}.attn.k_norm", "blocks.{l}.attn.k_norm", make=_qk_norm),
    *both("blocks.{l}.attn.ln", "blocks.{l}.attn.norm"),
    *both("blocks.{l}.attn.out", "blocks.{l}.attn.proj"),
    *both("blocks.{l}.mlp.pre", "blocks.{l}.mlp.fc1_g"),
    *both("blocks.{l}.mlp.pre_linear", "blocks.{l}.mlp.fc1_x"),
    *both("blocks.{l}.mlp.pre", "blocks.{l}.mlp.fc1"),
    *both("blocks.{l}.mlp.ln", "blocks.{l}.mlp.norm"),
    *both("blocks.{l}.mlp.out", "blocks.{l}.mlp.fc2"),
    ("blocks.{l}.scale1.weight", "blocks.{l}.ls1.gamma"),
    ("blocks.{l}.scale2.weight", "blocks.{l}.ls2.gamma"),
    ("blocks.{l}.scale1.weight", "blocks.{l}.gamma_1"),
    ("blocks.{l}.scale2.weight", "blocks.{l}.gamma_2"),
    ("blocks.{l}.scale2.weight", "blocks.{l}.gamma_1", ones),  # a layer scale of attention and none of the MLP
    *both("readout.ln_final", "norm"),
    *both("readout.ln_final", "fc_norm"),
    ("readout.attention_pool.query", "attn_pool.latent", first_row),
    *both("readout.attention_pool.q", "attn_pool.q"),
    *both("readout.attention_pool.k", "attn_pool.kv", make=chunk(0, 2)),
    *both("readout.attention_pool.v", "attn_pool.kv", make=chunk(1, 2)),
    *both("readout.attention_pool.out", "attn_pool.proj"),
    *both("readout.attention_pool.ln", "attn_pool.norm"),
    *both("readout.attention_pool.mlp.pre", "attn_pool.mlp.fc1"),
    *both("readout.attention_pool.mlp.out", "attn_pool.mlp.fc2"),
    *both("readout.head", "head"),
)  # fmt: skip
