"""transformers' video classes: ViViT, VideoMAE, TimeSformer, and the encoder of V-JEPA 2.

Sources: Arnab et al. 2103.15691 (ViViT); Tong et al. 2203.12602 (VideoMAE); Bertasius et al. 2102.05095 (TimeSformer);
Assran et al. 2506.09985 (V-JEPA 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.family import Family
from prisma.pretrained.parts import activation, first_part, is_present, n_classes, n_heads, norm
from prisma.pretrained.rules import Context, Conversion, Make, Row, Rule, both, inside, rules
from prisma.pretrained.tensors import (
    class_token_with_position,
    fact,
    flat,
    heads_in_halves,
    joined_with_zeros,
    no_prefix,
    patch_positions,
)
from prisma.pretrained.transformers.layout import Layout, family


@dataclass(frozen=True)
class VideoLayout(Layout):
    """Where a class has its parts, and how its configuration spells the sizes of a video."""

    layers: str = "encoder.layer"
    frames: str = "num_frames"  # the name in the configuration
    channels: str = "num_channels"
    options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the source's forward


def read(layout: VideoLayout, module: Any) -> Conversion:
    """The conversion of a video encoder, with or without a classifier. Raises UnsupportedModelError."""
    theirs = module.config
    _expect_exact(module)
    trunk, layers = layout.trunk_of(module), layout.layers_of(module)
    layer: Any = layers[0]
    _, eps = norm(part for part in trunk.modules() if isinstance(part, nn.LayerNorm))
    pooled_norm, head = getattr(module, "fc_norm", None), getattr(module, "classifier", None)
    rotates = hasattr(layer.attention, "apply_rotary_embeddings")
    config = ViTConfig(
        **_sizes(layout, theirs),
        n_layers=len(layers),
        d_model=theirs.hidden_size,
        norm_eps=eps,
        attention="divided" if hasattr(layer, "temporal_attention") else "joint",
        rotary="table" if rotates else "none",
        positions=not rotates,
        class_token=hasattr(trunk.embeddings, "cls_token"),
        pool=layout.pool,
        norm_final=is_present(trunk.layernorm) or is_present(pooled_norm),
        norm_final_eps=pooled_norm.eps if pooled_norm is not None else None,
        norm_pooled=is_present(pooled_norm),
        n_classes=n_classes(head),
        **_layer(layer),
    )
    facts = {
        "rotation": _rotation(layer.attention, config) if rotates else None,
        "positions": _fixed_positions(trunk.embeddings, config),
    }
    return Conversion(config, _table(layout), (r"pooler\.dense\.(weight|bias)", r"predictor\..*"), facts)


def _expect_exact(module: Any) -> None:
    """Raise UnsupportedModelError for forms of these classes that cannot be converted, with the reason."""
    config = module.config
    refused = {
        "attentive pooling": (
            hasattr(getattr(module, "pooler", None), "query_tokens"),
            "it has transformer blocks after the final norm; load the encoder alone",
        ),
        "attention_type='space_only'": (
            getattr(config, "attention_type", None) == "space_only",
            "the source then returns an output for each frame",
        ),
        "use_mean_pooling=False": (
            hasattr(module, "fc_norm") and module.fc_norm is None,
            "the source then classifies by the first patch alone",
        ),
    }
    for name, (found, why) in refused.items():
        if found:
            raise UnsupportedModelError(f"{name} is not supported: {why}")


def _layer(layer: Any) -> dict[str, Any]:
    """Fields of the config that a layer determines."""
    fused = first_part(layer, "attention.attention.qkv")
    parts = [fused] if fused else [first_part(layer, *names) for names in zip(*_QKV, strict=True)]
    return {
        "n_heads": n_heads(layer),
        "d_head": parts[0].out_features // n_heads(layer) // (3 if fused else 1),
        "qkv_bias": any(part.bias is not None for part in parts),
        "d_mlp": first_part(layer, "mlp.fc1", "intermediate.dense").out_features,
        "activation": activation(first_part(layer, *_ACTIVATIONS)),
    }


def _fixed_positions(embeddings: Any, config: ViTConfig) -> Tensor | None:
    """Positions [patch, d_model] that are not a parameter of the source; None if they are one, or it has none."""
    found = getattr(embeddings, "position_embeddings", None)
    if found is None:
        return None
    frames = embeddings.time_embeddings.shape[1] if hasattr(embeddings, "time_embeddings") else 1
    _expect_same_size((found.shape[1] - config.n_prefix) * frames == config.n_patches, config)
    return None if isinstance(found, nn.Parameter) else found[0].to(next(embeddings.parameters()))


def _expect_same_size(same: bool, config: ViTConfig) -> None:
    if not same:
        raise UnsupportedModelError(
            f"image_size={config.image_size} is not supported: positions of a video are not resampled"
        )


@torch.no_grad()
def _rotation(attention: Any, config: ViTConfig) -> Tensor:
    """Cosines and sines [2, patch, 1, d_head], computed by the source.

    Rotation is linear, so its outputs for ones at the even components and for ones at the odd components determine it.
    """
    _expect_same_size(config.grid[1:] == (attention.grid_size, attention.grid_size), config)
    weight = attention.query.weight
    places = attention.get_position_ids(weight.new_empty(1, config.n_patches, 0))
    even = (torch.arange(config.d_head, device=weight.device) % 2 == 0).to(weight.dtype)
    from_even, from_odd = (
        attention.apply_rotary_embeddings(ones.expand(1, 1, config.n_patches, -1), places)[0, 0]
        for ones in (even, 1 - even)
    )
    cos = torch.cat([from_even[:, 0::2], from_odd[:, 1::2]], dim=1)
    sin = torch.cat([-from_odd[:, 0::2], from_even[:, 1::2]], dim=1)
    return torch.stack([cos, sin])[:, :, None]


def _qkv(present: Sequence[int]) -> Make:
    """Weights or biases of q, k and v, zero where the source has none; heads reordered if they are rotated."""

    def make(context: Context, *parts: Tensor) -> Tensor:
        q, k, v = joined_with_zeros(present)(context, *parts).chunk(3)
        if context.config.rotary == "table":
            q, k = (heads_in_halves(x, context.config.d_head) for x in (q, k))
        return torch.cat([q, k, v])

    return make


def _space_and_time(_: Context, space: Tensor, time: Tensor) -> Tensor:
    """Positions [(frame patch), d_model]: a sum of that of the patch and that of the frame."""
    return (time[0][:, None] + space[0, 1:]).flatten(0, 1)


def _product(_: Context, last: Tensor, first: Tensor) -> Tensor:
    """Weight of the one linear map that equals two in sequence."""
    return (last.double() @ first.double()).to(last.dtype)


def _product_bias(_: Context, last: Tensor, first_bias: Tensor, last_bias: Tensor) -> Tensor:
    """Bias of the one linear map that equals two in sequence."""
    return (last.double() @ first_bias.double() + last_bias.double()).to(last.dtype)


_QKV = (
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    ("attention.query", "attention.key", "attention.value"),
)
_ACTIVATIONS = ("mlp.activation_fn", "mlp.activation", "intermediate.intermediate_act_fn")
_ALL, _NO_K = (1, 1, 1), (1, 0, 1)
_TRUNK: tuple[Row, ...] = (
    *(("embed.patch.weight", f"embeddings.patch_embeddings.{name}.weight", flat) for name in ("projection", "proj")),
    *(("embed.patch.bias", f"embeddings.patch_embeddings.{name}.bias") for name in ("projection", "proj")),
    ("embed.prefix", "embeddings.cls_token embeddings.position_embeddings", class_token_with_position),
    *(("embed.prefix", f"embeddings.patch_embeddings.{name}.weight", no_prefix) for name in ("projection", "proj")),
    ("embed.positions", "embeddings.position_embeddings embeddings.time_embeddings", _space_and_time),
    ("embed.positions", "embeddings.position_embeddings", patch_positions),
    ("embed.positions", "", fact("positions")),
    *both("readout.ln_final", "layernorm"),
)
_LAYER: tuple[Row, ...] = (
    *both("blocks.{l}.ln1", "layernorm_before", "norm1"),
    *both("blocks.{l}.ln2", "layernorm_after", "norm2"),
    *(("blocks.{l}.attn.qkv.weight", " ".join(f"{name}.weight" for name in names), _qkv(_ALL)) for names in _QKV),
    *(("blocks.{l}.attn.qkv.bias", " ".join(f"{name}.bias" for name in names), _qkv(_ALL)) for names in _QKV),
    *(("blocks.{l}.attn.qkv.bias", f"{q}.bias {v}.bias", _qkv(_NO_K)) for q, _, v in _QKV),
    *both("blocks.{l}.attn.qkv", "attention.attention.qkv"),
    *both("blocks.{l}.attn.out", "attention.o_proj", "attention.output.dense", "attention.proj"),
    ("blocks.{l}.attn.rotation", "", fact("rotation")),
    *both("blocks.{l}.ln_time", "temporal_layernorm"),
    *both("blocks.{l}.time.qkv", "temporal_attention.attention.qkv"),
    ("blocks.{l}.time.out.weight", "temporal_dense.weight temporal_attention.output.dense.weight", _product),
    ("blocks.{l}.time.out.bias", "temporal_dense.weight temporal_attention.output.dense.bias temporal_dense.bias",
     _product_bias),
    *both("blocks.{l}.mlp.pre", "mlp.fc1", "intermediate.dense"),
    *both("blocks.{l}.mlp.out", "mlp.fc2", "output.dense"),
)  # fmt: skip
_HEAD: tuple[Row, ...] = (*both("readout.ln_final", "fc_norm"), *both("readout.head", "classifier"))


def _table(layout: VideoLayout) -> tuple[Rule, ...]:
    return rules(*inside(layout.trunk, (*_TRUNK, *inside(f"{layout.layers}.{{l}}", _LAYER))), *_HEAD)


def answer(layout: VideoLayout, module: Any, videos: Tensor) -> Tensor:
    """A classifier's logits; else the class token, or the mean of the tokens if there is none."""
    frames = videos.transpose(1, 2) if videos.ndim == 5 else videos[:, None]  # the source's axes: frame, then channel
    output = module(frames, **layout.options)
    if "logits" in output:
        return output.logits
    tokens = output.last_hidden_state
    return tokens[:, 0] if layout.pool == "class" else tokens.mean(1)


def _frames_first(module: Any, x_BTM: Tensor) -> Tensor:
    """The source orders patches by place and then by frame; ours are ordered by frame and then by place."""
    patches_BSFM = x_BTM[:, 1:].unflatten(1, (-1, module.config.num_frames))
    return torch.cat([x_BTM[:, :1], patches_BSFM.transpose(1, 2).flatten(1, 2)], dim=1)


def _sizes(layout: VideoLayout, theirs: Any) -> dict[str, Any]:
    """Sizes of a video, from a configuration without tubelets (one frame each), or whose tubelets include the patch."""
    tubelet = getattr(theirs, "tubelet_size", 1)
    tubelet, *patch = (tubelet,) if isinstance(tubelet, int) else tubelet
    return {
        "image_size": getattr(theirs, "image_size", None) or theirs.crop_size,
        "patch_size": tuple(patch) or theirs.patch_size,
        "channels": getattr(theirs, layout.channels),
        "frames": getattr(theirs, layout.frames),
        "tubelet": tubelet,
    }


_VIVIT = {
    "VivitModel": VideoLayout(layers="layers"),
    "VivitForVideoClassification": VideoLayout("vivit", layers="layers"),
}
_VIDEO_MAE = {
    "VideoMAEModel": VideoLayout(pool="mean"),
    "VideoMAEForVideoClassification": VideoLayout("videomae", pool="mean"),
}
_TIMESFORMER = {
    "TimesformerModel": VideoLayout(),
    "TimesformerForVideoClassification": VideoLayout("timesformer"),
}
_JEPA = VideoLayout(
    "encoder", "layer", "mean", frames="frames_per_clip", channels="in_chans", options={"skip_predictor": True}
)
_VJEPA2 = {"VJEPA2Model": _JEPA, "VJEPA2ForVideoClassification": _JEPA}  # the classifier is refused, with the reason
FAMILIES: tuple[Family, ...] = (
    family("ViViT", "vivit.modeling_vivit", _VIVIT, read, answer),
    family("VideoMAE", "videomae.modeling_videomae", _VIDEO_MAE, read, answer),
    family("TimeSformer", "timesformer.modeling_timesformer", _TIMESFORMER, read, answer, _frames_first),
    family("V-JEPA 2", "vjepa2.modeling_vjepa2", _VJEPA2, read, answer),
)
