"""What transformers' image encoders share: one table of rules, and the reading of their parts.

The classes differ in where the encoder stands in the module, in what its layers are called, and in how they pool; those
three are a `Layout`. All else is seen on the live module.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prisma.config import ViTConfig
from prisma.pretrained.parts import activation, fixed, n_classes, n_heads, norm, there, torn
from prisma.pretrained.rules import Context, Make, Rule, Source, UnsupportedModelError, flat, joined, rules, same

PREFIX = ("cls_token", "distillation_token", "register_tokens")  # in the order of the tokens


@dataclass(frozen=True)
class Layout:
    """Where a class has its parts."""

    trunk: str = ""  # the attribute that is the encoder, if the module is more than that
    layers: str = "layers"  # of the encoder
    pool: str = "class"  # unless the module has a pooling of its own


def read(layout: Layout, module: Any) -> Source:
    """Raises UnsupportedModelError."""
    config = module.config
    trunk = module.get_submodule(layout.trunk)
    layers = trunk.get_submodule(layout.layers)
    if not len(layers):
        raise UnsupportedModelError("num_hidden_layers=0 is not supported: there would be nothing to look into")
    facts: dict[str, Any] = {
        "positions": positions(trunk.embeddings, config),
        "rotation": _rotation(trunk, config),
        "bias": next((part for part in trunk.modules() if hasattr(part, "relative_position_bias_table")), None),
    }
    kind, eps = norm(part for part in trunk.modules() if "Norm" in type(part).__name__)
    canonical = ViTConfig(
        image_size=sides(config.image_size),
        patch_size=sides(config.patch_size),
        cut_edge=torn(sides(config.image_size), sides(config.patch_size)),
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
    return Source(canonical, _table(layout, trunk.embeddings), UNUSED, facts)


def sides(size: Any) -> tuple[int, int]:
    """A side, or (height, width) -> (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def resamples(embeddings: Any) -> bool:
    """Whether the forward must be asked to resample its positions, and refuses other image sizes when it is not."""
    return "interpolate_pos_encoding" in inspect.signature(embeddings.forward).parameters


@torch.no_grad()
def positions(embeddings: Any, config: Any) -> Tensor | None:
    """Positions [1, token, d_model] as the source has them for images of `config.image_size`; None if it has no table.

    Raises:
        UnsupportedModelError: they are of another size, and the source cannot resample them.
    """
    (height, width), (p, q) = sides(config.image_size), sides(config.patch_size)
    if getattr(config, "is_native", False):
        weight = embeddings.patch_embed.weight
        return _waves(height // p, width // q, config.hidden_size).to(weight)
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
            f"image_size={config.image_size} is not supported: the source resamples positions of square patches "
            f"from a square grid only"
        ) from None


def _waves(height: int, width: int, d_model: int) -> Tensor:
    """Sines and cosines [1, height * width, d_model] in float64: of columns, then of rows, a quarter each."""
    frequencies = 10_000.0 ** -(torch.arange(d_model // 4, dtype=torch.float64) / (d_model // 4))
    row, column = torch.cartesian_prod(torch.arange(height), torch.arange(width)).unbind(1)
    angles = [place[:, None] * frequencies for place in (column, row)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)[None]


@torch.no_grad()
def _rotation(trunk: Any, config: Any) -> Tensor | None:
    """Cosines and sines [2, patch, 1, d_head], by the source's own arithmetic."""
    if not hasattr(trunk, "rope_embeddings"):
        return None
    weight = trunk.embeddings.patch_embeddings.weight
    pixels = weight.new_empty(1).expand(1, 1, *sides(config.image_size))  # only the shape counts
    return torch.stack(trunk.rope_embeddings(pixels))[:, :, None]


def _prefix(embeddings: Any) -> list[str]:
    return [name for name in PREFIX if hasattr(embeddings, name)]


def _part(module: Any, *names: str) -> Any:
    """The one of these parts that the module has."""
    parts = dict(module.named_modules())
    return next(parts[name] for name in names if name in parts)


def _layer(layer: Any) -> dict[str, Any]:
    """Fields that a layer tells."""
    attention = _part(layer, "attention.attention", "attention")
    query, key, value = (_part(attention, f"{name[0]}_proj", name) for name in ("query", "key", "value"))
    mlp = _part(layer, "mlp", "ffn", "intermediate")
    inner = _part(mlp, "fc1", "up_proj", "dense")
    return {
        "n_heads": n_heads(layer),
        "d_head": query.out_features // n_heads(layer),
        "qkv_bias": any(part.bias is not None for part in (query, key, value)),
        "d_mlp": inner.out_features,
        "activation": activation(_part(mlp, "activation_fn", "act_fn", "intermediate_act_fn")),
        "gated_mlp": hasattr(mlp, "gate_proj"),
        "layer_scale": hasattr(layer, "layer_scale1") or isinstance(getattr(layer, "lambda_1", None), nn.Parameter),
    }


def _readout(module: Any, trunk: Any, pool: str) -> dict[str, Any]:
    """Fields that pooling, final norm and head tell."""
    final = _part(trunk, "layernorm", "norm", "rms_norm")
    pooled = getattr(getattr(trunk, "pooler", None), "layernorm", None)  # the mean of the patches, then a norm (BEiT)
    attention = hasattr(trunk, "head")
    heads = [part for name in HEADS if (part := getattr(module, name, None)) is not None]
    n_found = [n_classes(head) for head in heads] or [0]
    if len(heads) == 2 and 0 in n_found:
        raise UnsupportedModelError("two heads without classes are not supported: the source would average two tokens")
    return {
        "pool": "attention" if attention else "mean" if there(pooled) else pool,
        "pool_d_mlp": 0 if attention else None,
        "norm_final": there(final) or there(pooled),
        "norm_pooled": there(pooled),
        "n_classes": n_found[0],
    }


HEADS = ("classifier", "cls_classifier", "distillation_classifier")
UNUSED = (
    r"(.*\.)?embeddings\.mask_token",  # in the place of hidden patches, when training
    r"(.*\.)?pooler\.dense\.(weight|bias)",  # a tanh of the class token; we answer with the token itself
    r"decoder\..*",  # MAE's, from tokens back to pixels
)
"""Tensors that have no part in what we compute."""


def _whole(context: Context, *_: Tensor) -> Tensor:
    """Positions of the patches, in memory of their own: they may be a parameter of a live module."""
    return context.facts["positions"][0, -context.config.n_patches :].clone()


def _tokens(context: Context, like: Tensor, *tokens: Tensor) -> Tensor:
    """Prefix tokens [prefix, d_model], those first in line with their positions."""
    stacked = torch.cat([like.new_empty(0, context.config.d_model), *(token[0] for token in tokens)])
    if context.facts["positions"] is None:
        return stacked
    placed = context.facts["positions"][0, : -context.config.n_patches]
    return torch.cat([stacked[: len(placed)] + placed, stacked[len(placed) :]])


def _bias(context: Context, *tables: Tensor) -> Tensor:
    """Relative positions of this layer, and those that all layers share: the source's own arithmetic on its tables."""
    module, window = context.facts["bias"], context.config.grid[1:]
    return sum(functional_call(module, {"relative_position_bias_table": x}, (window,))[0] for x in tables)


def _scattered(present: tuple[int, ...]) -> Make:
    """Biases of q, k and v, some of which are absent: zeros."""

    def make(_: Context, *parts: Tensor) -> Tensor:
        found = iter(parts)
        return torch.cat([next(found) if here else torch.zeros_like(parts[0]) for here in present])

    return make


def _identity(_: Context, query: Tensor) -> Tensor:
    return torch.eye(query.shape[-1], dtype=query.dtype, device=query.device)


def _row(_: Context, x: Tensor) -> Tensor:
    return x[0]


def _halves(_: Context, one: Tensor, other: Tensor) -> Tensor:
    """The average of two heads, each of its own token."""
    return torch.cat([one, other], dim=1) / 2


def _average(_: Context, one: Tensor, other: Tensor) -> Tensor:
    return (one + other) / 2


def _both(ours: str, *theirs: str) -> list[tuple[str, str]]:
    return [(f"{ours}.{kind}", f"{name}.{kind}") for name in theirs for kind in ("weight", "bias")]


_SUBSETS = [present for present in product((1, 0), repeat=3) if any(present)]  # all three first
_QKV = (
    [f"L.attention.{name}_proj" for name in "qkv"],
    [f"L.attention.attention.{name}" for name in ("query", "key", "value")],
)
_KERNELS = ("T.embeddings.patch_embeddings.projection", "T.embeddings.patch_embeddings", "T.embeddings.patch_embed")
_OWN_BIAS = ("L.relative_position_bias", "L.attention.attention.relative_position_bias")
_SHARED_BIAS = ("T.shared_position_bias", "T.encoder.relative_position_bias")

TABLE: tuple[tuple[str, str] | tuple[str, str, Make], ...] = (
    *(("embed.patch.weight", f"{name}.weight", flat) for name in _KERNELS),
    *(("embed.patch.bias", f"{name}.bias") for name in _KERNELS),
    ("embed.positions", "T.embeddings.position_embeddings", _whole),
    ("embed.positions", "T.embeddings.position_embedding.weight", _whole),
    ("embed.positions", "", _whole),
    *_both("embed.ln_patch", "T.embeddings.rms_norm"),
    *_both("blocks.{l}.ln1", "L.layernorm_before", "L.norm1", "L.rms_norm1"),
    *_both("blocks.{l}.ln2", "L.layernorm_after", "L.norm2", "L.rms_norm2"),
    *(("blocks.{l}.attn.qkv.weight", " ".join(f"{part}.weight" for part in qkv), joined) for qkv in _QKV),
    *(
        (
            "blocks.{l}.attn.qkv.bias",
            " ".join(f"{part}.bias" for part, here in zip(qkv, present, strict=True) if here),
            _scattered(present),
        )
        for present in _SUBSETS
        for qkv in _QKV
    ),
    ("blocks.{l}.attn.rotation", "", fixed("rotation")),
    *(
        ("blocks.{l}.attn.bias", " ".join(f"{name}.relative_position_bias_table" for name in names), _bias)
        for names in (*product(_OWN_BIAS, _SHARED_BIAS), *product(_OWN_BIAS), *product(_SHARED_BIAS))
    ),
    *_both("blocks.{l}.attn.out", "L.attention.o_proj", "L.attention.out_proj", "L.attention.output.dense"),
    *_both("blocks.{l}.mlp.pre", "L.mlp.gate_proj", "L.ffn.gate_proj"),
    *_both("blocks.{l}.mlp.pre_linear", "L.mlp.up_proj", "L.ffn.up_proj"),
    *_both("blocks.{l}.mlp.pre", "L.mlp.fc1", "L.mlp.up_proj", "L.intermediate.dense"),
    *_both("blocks.{l}.mlp.out", "L.mlp.fc2", "L.mlp.down_proj", "L.ffn.down_proj", "L.output.dense"),
    *((f"blocks.{{l}}.scale{n}.weight", f"L.layer_scale{n}.lambda1", same) for n in (1, 2)),
    *((f"blocks.{{l}}.scale{n}.weight", f"L.lambda_{n}", same) for n in (1, 2)),
    *_both("readout.ln_final", "T.layernorm", "T.norm", "T.rms_norm", "T.pooler.layernorm"),
    ("readout.attention_pool.query", "T.head.cls_token", _row),
    ("readout.attention_pool.q.weight", "T.head.cls_token", _identity),
    *_both("readout.attention_pool.k", "T.head.k_proj"),
    *_both("readout.attention_pool.v", "T.head.v_proj"),
    *_both("readout.attention_pool.out", "T.head.output_proj"),
    *_both("readout.head", "classifier"),
    ("readout.head.weight", "cls_classifier.weight distillation_classifier.weight", _halves),
    ("readout.head.bias", "cls_classifier.bias distillation_classifier.bias", _average),
)
"""Theirs: T stands for the trunk, L for a layer of it."""


def _table(layout: Layout, embeddings: Any) -> tuple[Rule, ...]:
    """The table for one layout, and the prefix tokens that a model has."""
    trunk = f"{layout.trunk}." if layout.trunk else ""
    kernel = next(name for name, _ in embeddings.named_parameters() if name.endswith("weight"))
    prefix = ("embed.prefix", " ".join(f"T.embeddings.{name}" for name in (kernel, *_prefix(embeddings))), _tokens)
    places = {"T.": trunk, "L.": f"{trunk}{layout.layers}.{{l}}."}
    return rules(*((ours, _placed(theirs, places), *make) for ours, theirs, *make in (prefix, *TABLE)))


def _placed(theirs: str, places: Mapping[str, str]) -> str:
    return " ".join(places.get(name[:2], name[:2]) + name[2:] for name in theirs.split())
