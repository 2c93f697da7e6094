"""Reading transformers' image encoders: one table of rules for all of them.

The classes differ in where the encoder is in the module, what its layers are called, and how they pool. Those three are
a `Layout`; everything else is read from the live module.
"""

import inspect
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prisma.config import ViTConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.parts import (
    activation,
    first_part,
    has_cut_edge,
    is_present,
    n_classes,
    n_heads,
    norm,
    sides,
)
from prisma.pretrained.rules import Context, Conversion, Row, Rule, both, inside, rules, same
from prisma.pretrained.tensors import averaged_heads, fact, first_row, flat, joined, joined_with_zeros
from prisma.pretrained.transformers.layout import Layout

PREFIX = ("cls_token", "distillation_token", "register_tokens")  # in the order of the tokens
HEADS = ("classifier", "cls_classifier", "distillation_classifier")
UNUSED = (
    r"(.*\.)?embeddings\.mask_token",  # replaces hidden patches in training
    r"(.*\.)?pooler\.dense\.(weight|bias)",  # a tanh layer on the class token; our output is the token itself
    r"decoder\..*",  # of MAE, from tokens back to pixels
)
"""Tensors that do not affect the output that we compute."""


def read(layout: Layout, module: Any) -> Conversion:
    """The conversion of an image encoder, with or without a classifier. Raises UnsupportedModelError."""
    config = module.config
    trunk, layers = layout.trunk_of(module), layout.layers_of(module)
    facts: dict[str, Any] = {
        "positions": positions(trunk.embeddings, config),
        "rotation": _rotation(trunk, config),
        "bias": next((part for part in trunk.modules() if hasattr(part, "relative_position_bias_table")), None),
    }
    kind, eps = norm(part for part in trunk.modules() if "Norm" in type(part).__name__)
    canonical = ViTConfig(
        image_size=sides(config.image_size),
        patch_size=sides(config.patch_size),
        cut_edge=has_cut_edge(sides(config.image_size), sides(config.patch_size)),
        channels=config.num_channels,
        n_layers=len(layers),
        d_model=config.hidden_size,
        norm_kind=kind,
        norm_eps=eps,
        positions=facts["positions"] is not None,
        rotary="none" if facts["rotation"] is None else "table",
        score_bias=facts["bias"] is not None,
        class_token=hasattr(trunk.embeddings, "cls_token"),
        registers=sum(getattr(trunk.embeddings, name).shape[1] for name in _prefix(trunk.embeddings)[1:]),
        norm_patches=hasattr(trunk.embeddings, "rms_norm"),
        **_layer(layers[0]),
        **_readout(module, trunk, layout.pool),
    )
    return Conversion(canonical, _table(layout, trunk.embeddings), UNUSED, facts)


def resamples(embeddings: Any) -> bool:
    """Whether the forward resamples positions only if its arguments say so, and else refuses other image sizes."""
    return "interpolate_pos_encoding" in inspect.signature(embeddings.forward).parameters


@torch.no_grad()
def positions(embeddings: Any, config: Any) -> Tensor | None:
    """The source's positions [1, token, d_model] for images of size `config.image_size`; None if it has none.

    Raises:
        UnsupportedModelError: they belong to another image size, and the source cannot resample them.
    """
    (height, width), (p, q) = sides(config.image_size), sides(config.patch_size)
    if getattr(config, "is_native", False):
        weight = embeddings.patch_embed.weight
        return _sinusoids(height // p, width // q, config.hidden_size).to(weight)
    if hasattr(embeddings, "position_embedding"):
        found = embeddings.position_embedding.weight[None]
        if found.shape[1] == (height // p) * (width // q):
            return found
        raise UnsupportedModelError(
            f"image_size={config.image_size} is not supported: the source does not resample its positions"
        )
    if getattr(embeddings, "position_embeddings", None) is None:
        return None
    if resamples(embeddings) and sides(embeddings.image_size) == (height, width):
        return embeddings.position_embeddings
    n_special = sum(getattr(embeddings, name).shape[1] for name in _prefix(embeddings) if name != "register_tokens")
    n_tokens = n_special + (height // p) * (width // q)
    try:
        like = torch.empty(1, n_tokens, config.hidden_size, device="meta")
        return embeddings.interpolate_pos_encoding(like, height, width)
    except (RuntimeError, TypeError):
        raise UnsupportedModelError(
            f"image_size={config.image_size} is not supported: the source resamples positions only of square patches "
            f"and from a square grid"
        ) from None


def _sinusoids(height: int, width: int, d_model: int) -> Tensor:
    """Sines and cosines of the column, then of the row, a quarter of d_model each: [1, patch, d_model] in float64."""
    frequencies = 10_000.0 ** -(torch.arange(d_model // 4, dtype=torch.float64) / (d_model // 4))
    row, column = torch.cartesian_prod(torch.arange(height), torch.arange(width)).unbind(1)
    angles = [place[:, None] * frequencies for place in (column, row)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)[None]


@torch.no_grad()
def _rotation(trunk: Any, config: Any) -> Tensor | None:
    """Cosines and sines [2, patch, 1, d_head], computed by the source; None if it does not rotate."""
    if not hasattr(trunk, "rope_embeddings"):
        return None
    weight = trunk.embeddings.patch_embeddings.weight
    pixels = weight.new_empty(1).expand(1, 1, *sides(config.image_size))  # only its shape matters
    return torch.stack(trunk.rope_embeddings(pixels))[:, :, None]


def _prefix(embeddings: Any) -> list[str]:
    """The prefix tokens that a source has."""
    return [name for name in PREFIX if hasattr(embeddings, name)]


def _layer(layer: Any) -> dict[str, Any]:
    """Fields of the config that a layer determines."""
    attention = first_part(layer, "attention.attention", "attention")
    query, key, value = (first_part(attention, f"{name[0]}_proj", name) for name in ("query", "key", "value"))
    mlp = first_part(layer, "mlp", "ffn", "intermediate")
    inner = first_part(mlp, "fc1", "up_proj", "dense")
    return {
        "n_heads": n_heads(layer),
        "d_head": query.out_features // n_heads(layer),
        "qkv_bias": any(part.bias is not None for part in (query, key, value)),
        "d_mlp": inner.out_features,
        "activation": activation(first_part(mlp, "activation_fn", "act_fn", "intermediate_act_fn")),
        "gated_mlp": hasattr(mlp, "gate_proj"),
        "layer_scale": hasattr(layer, "layer_scale1") or isinstance(getattr(layer, "lambda_1", None), nn.Parameter),
    }


def _readout(module: Any, trunk: Any, pool: str) -> dict[str, Any]:
    """Fields of the config that pooling, final norm and head determine."""
    final = first_part(trunk, "layernorm", "norm", "rms_norm")
    pooled = getattr(getattr(trunk, "pooler", None), "layernorm", None)  # BEiT: a norm of the mean of the patches
    attention = hasattr(trunk, "head")
    heads = [part for name in HEADS if (part := getattr(module, name, None)) is not None]
    n_found = [n_classes(head) for head in heads] or [0]
    if len(heads) == 2 and 0 in n_found:
        raise UnsupportedModelError(
            "two heads without classes are not supported: the source then returns the average of two tokens"
        )
    return {
        "pool": "attention" if attention else "mean" if is_present(pooled) else pool,
        "pool_d_mlp": 0 if attention else None,
        "norm_final": is_present(final) or is_present(pooled),
        "norm_pooled": is_present(pooled),
        "n_classes": n_found[0],
    }


def _patch_positions(context: Context, *_: Tensor) -> Tensor:
    """Positions of the patches. They are copied, because they may be a parameter of a live module."""
    return context.facts["positions"][0, -context.config.n_patches :].clone()


def _tokens(context: Context, like: Tensor, *tokens: Tensor) -> Tensor:
    """Prefix tokens [prefix, d_model]; the first of them have positions."""
    stacked = torch.cat([like.new_empty(0, context.config.d_model), *(token[0] for token in tokens)])
    if context.facts["positions"] is None:
        return stacked
    positions = context.facts["positions"][0, : -context.config.n_patches]
    return torch.cat([stacked[: len(positions)] + positions, stacked[len(positions) :]])


def _bias(context: Context, *tables: Tensor) -> Tensor:
    """Relative positions of this layer plus those that all layers share, computed by the source from its tables."""
    module, window = context.facts["bias"], context.config.grid[1:]
    return sum(functional_call(module, {"relative_position_bias_table": x}, (window,))[0] for x in tables)


def _identity(_: Context, query: Tensor) -> Tensor:
    """The projection of a query that the source uses as it is."""
    return torch.eye(query.shape[-1], dtype=query.dtype, device=query.device)


_SUBSETS = [present for present in product((1, 0), repeat=3) if any(present)]  # all three first
_QKV = (
    [f"attention.{name}_proj" for name in "qkv"],
    [f"attention.attention.{name}" for name in ("query", "key", "value")],
)
_KERNELS = ("embeddings.patch_embeddings.projection", "embeddings.patch_embeddings", "embeddings.patch_embed")
_OWN_BIAS = ("relative_position_bias", "attention.attention.relative_position_bias")
_SHARED_BIAS = ("shared_position_bias", "encoder.relative_position_bias")

_TRUNK: tuple[Row, ...] = (
    *(("embed.patch.weight", f"{name}.weight", flat) for name in _KERNELS),
    *(("embed.patch.bias", f"{name}.bias") for name in _KERNELS),
    ("embed.positions", "embeddings.position_embeddings", _patch_positions),
    ("embed.positions", "embeddings.position_embedding.weight", _patch_positions),
    ("embed.positions", "", _patch_positions),
    *both("embed.ln_patch", "embeddings.rms_norm"),
    *both("readout.ln_final", "layernorm", "norm", "rms_norm", "pooler.layernorm"),
    ("readout.attention_pool.query", "head.cls_token", first_row),
    ("readout.attention_pool.q.weight", "head.cls_token", _identity),
    *both("readout.attention_pool.k", "head.k_proj"),
    *both("readout.attention_pool.v", "head.v_proj"),
    *both("readout.attention_pool.out", "head.output_proj"),
)
_LAYER: tuple[Row, ...] = (
    *both("blocks.{l}.ln1", "layernorm_before", "norm1", "rms_norm1"),
    *both("blocks.{l}.ln2", "layernorm_after", "norm2", "rms_norm2"),
    *(("blocks.{l}.attn.qkv.weight", " ".join(f"{part}.weight" for part in qkv), joined) for qkv in _QKV),
    *(
        (
            "blocks.{l}.attn.qkv.bias",
            " ".join(f"{part}.bias" for part, here in zip(qkv, present, strict=True) if here),
            joined_with_zeros(present),
        )
        for present in _SUBSETS
        for qkv in _QKV
    ),
    ("blocks.{l}.attn.rotation", "", fact("rotation")),
    *both("blocks.{l}.attn.out", "attention.o_proj", "attention.out_proj", "attention.output.dense"),
    *both("blocks.{l}.mlp.pre", "mlp.gate_proj", "ffn.gate_proj"),
    *both("blocks.{l}.mlp.pre_linear", "mlp.up_proj", "ffn.up_proj"),
    *both("blocks.{l}.mlp.pre", "mlp.fc1", "mlp.up_proj", "intermediate.dense"),
    *both("blocks.{l}.mlp.out", "mlp.fc2", "mlp.down_proj", "ffn.down_proj", "output.dense"),
    *((f"blocks.{{l}}.scale{n}.weight", f"layer_scale{n}.lambda1", same) for n in (1, 2)),
    *((f"blocks.{{l}}.scale{n}.weight", f"lambda_{n}", same) for n in (1, 2)),
)
_HEAD: tuple[Row, ...] = (
    *both("readout.head", "classifier"),
    *both("readout.head", "cls_classifier distillation_classifier", make=averaged_heads),
)


def _table(layout: Layout, embeddings: Any) -> tuple[Rule, ...]:
    """The rules for one layout, and for the prefix tokens that a source has."""
    layer = f"{layout.layers}.{{l}}"
    kernel = next(name for name, _ in embeddings.named_parameters() if name.endswith("weight"))
    prefix = " ".join(f"embeddings.{name}" for name in (kernel, *_prefix(embeddings)))
    own = [f"{layer}.{name}" for name in _OWN_BIAS]
    biases: list[Row] = [
        ("blocks.{l}.attn.bias", " ".join(f"{name}.relative_position_bias_table" for name in names), _bias)
        for names in (*product(own, _SHARED_BIAS), *product(own), *product(_SHARED_BIAS))
    ]
    trunk = (("embed.prefix", prefix, _tokens), *_TRUNK, *inside(layer, _LAYER), *biases)
    return rules(*inside(layout.trunk, trunk), *_HEAD)
