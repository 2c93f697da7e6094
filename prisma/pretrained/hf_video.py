"""transformers' video classes: ViViT, VideoMAE, TimeSformer, and the encoder of V-JEPA 2.

Sources: Arnab et al. 2103.15691 (ViViT); Tong et al. 2203.12602 (VideoMAE); Bertasius et al. 2102.05095 (TimeSformer);
Assran et al. 2506.09985 (V-JEPA 2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.pretrained.family import Family
from prisma.pretrained.hf_text import Row, both, within
from prisma.pretrained.parts import activation, fixed, heads_in_halves, n_classes, n_heads, norm, there
from prisma.pretrained.rules import Context, Make, Rule, Source, UnsupportedModelError, flat, rules


@dataclass(frozen=True)
class Layout:
    """Where a class has its parts."""

    sizes: Callable[[Any], dict[str, Any]]  # of a video: their config -> fields of ours
    trunk: str = ""  # the attribute that is the encoder, if the module is more than that
    layers: str = "encoder.layer"  # of the encoder
    pool: str = "class"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the forward


def read(layouts: Mapping[str, Layout], module: Any) -> Source:
    """`layouts` by the name of the class. Raises UnsupportedModelError."""
    layout, theirs = layouts[type(module).__name__], module.config
    _expect_exact(module)
    trunk = module.get_submodule(layout.trunk)
    layer = trunk.get_submodule(f"{layout.layers}.0")
    _, eps = norm(part for part in trunk.modules() if isinstance(part, nn.LayerNorm))
    pooled_norm, head = getattr(module, "fc_norm", None), getattr(module, "classifier", None)
    rotates = hasattr(layer.attention, "apply_rotary_embeddings")
    config = ViTConfig(
        **layout.sizes(theirs),
        n_layers=len(trunk.get_submodule(layout.layers)),
        d_model=theirs.hidden_size,
        norm_eps=eps,
        attention="divided" if hasattr(layer, "temporal_attention") else "joint",
        rotary="table" if rotates else "none",
        positions=not rotates,
        class_token=hasattr(trunk.embeddings, "cls_token"),
        pool=layout.pool,
        norm_final=there(trunk.layernorm) or there(pooled_norm),
        norm_final_eps=pooled_norm.eps if pooled_norm is not None else None,
        norm_pooled=there(pooled_norm),
        n_classes=n_classes(head),
        **_layer(layer),
    )
    facts = {
        "rotation": _rotation(layer.attention, config) if rotates else None,
        "positions": _waves(trunk.embeddings, config),
    }
    return Source(config, _table(layout), (r"pooler\.dense\.(weight|bias)", r"predictor\..*"), facts)


def _expect_exact(module: Any) -> None:
    """Raises UnsupportedModelError, and says why."""
    config = module.config
    refused = {
        "num_hidden_layers=0": (config.num_hidden_layers == 0, "there would be nothing to look into"),
        "attentive pooling": (
            hasattr(getattr(module, "pooler", None), "query_tokens"),
            "it has blocks of its own after the final norm; the encoder alone can be had",
        ),
        "attention_type='space_only'": (
            getattr(config, "attention_type", None) == "space_only",
            "the source then answers once for each frame",
        ),
        "use_mean_pooling=False": (
            hasattr(module, "fc_norm") and module.fc_norm is None,
            "the classes would follow from the first patch alone",
        ),
    }
    for name, (found, why) in refused.items():
        if found:
            raise UnsupportedModelError(f"{name} is not supported: {why}")


def _part(module: Any, *names: str) -> Any:
    """The one of these parts that the module has."""
    parts = dict(module.named_modules())
    return next((parts[name] for name in names if name in parts), None)


def _layer(layer: Any) -> dict[str, Any]:
    """Fields that a layer tells."""
    fused = _part(layer, "attention.attention.qkv")
    parts = [fused] if fused else [_part(layer, *names) for names in zip(*_QKV, strict=True)]
    return {
        "n_heads": n_heads(layer),
        "d_head": parts[0].out_features // n_heads(layer) // (3 if fused else 1),
        "qkv_bias": any(part.bias is not None for part in parts),
        "d_mlp": _part(layer, "mlp.fc1", "intermediate.dense").out_features,
        "activation": activation(_part(layer, *_ACTIVATIONS)),
    }


def _waves(embeddings: Any, config: ViTConfig) -> Tensor | None:
    """Fixed positions [patch, d_model], which are no weights of the source; None if it has others."""
    found = getattr(embeddings, "position_embeddings", None)
    if found is None:
        return None
    frames = embeddings.time_embeddings.shape[1] if hasattr(embeddings, "time_embeddings") else 1
    _expect_same_size((found.shape[1] - config.n_prefix) * frames == config.n_patches, config)
    return None if isinstance(found, nn.Parameter) else found[0].to(next(embeddings.parameters()))


def _expect_same_size(same: bool, config: ViTConfig) -> None:
    if not same:
        raise UnsupportedModelError(
            f"image_size={config.image_size} is not supported: positions of video are not resampled"
        )


@torch.no_grad()
def _rotation(attention: Any, config: ViTConfig) -> Tensor:
    """Cosines and sines [2, patch, 1, d_head], by the source's own arithmetic: it is linear, so what it does to ones at
    even places and to ones at odd places tells them all.
    """
    _expect_same_size(config.grid[1:] == (attention.grid_size, attention.grid_size), config)
    weight = attention.query.weight
    places = attention.get_position_ids(weight.new_empty(1, config.n_patches, 0))
    even = (torch.arange(config.d_head, device=weight.device) % 2 == 0).to(weight.dtype)
    of_even, of_odd = (
        attention.apply_rotary_embeddings(ones.expand(1, 1, config.n_patches, -1), places)[0, 0]
        for ones in (even, 1 - even)
    )
    cos = torch.cat([of_even[:, 0::2], of_odd[:, 1::2]], dim=1)
    sin = torch.cat([-of_odd[:, 0::2], of_even[:, 1::2]], dim=1)
    return torch.stack([cos, sin])[:, :, None]


def _qkv(present: Sequence[int]) -> Make:
    """Weights or biases of q, k and v, some of which are absent: zeros; in our order of a head's numbers if rotated."""

    def make(context: Context, *parts: Tensor) -> Tensor:
        found = iter(parts)
        q, k, v = (next(found) if here else torch.zeros_like(parts[0]) for here in present)
        if context.config.rotary == "table":
            q, k = (heads_in_halves(x, context.config.d_head) for x in (q, k))
        return torch.cat([q, k, v])

    return make


def _class_token(_: Context, token: Tensor, positions: Tensor) -> Tensor:
    """Our prefix tokens carry their own position."""
    return token[0] + positions[0, :1]


def _no_prefix(_: Context, kernel: Tensor) -> Tensor:
    return kernel.new_empty(0, kernel.shape[0])


def _of_patches(_: Context, positions: Tensor) -> Tensor:
    return positions[0, 1:]


def _places_and_times(_: Context, places: Tensor, times: Tensor) -> Tensor:
    """[frame place, d_model]"""
    return (times[0][:, None] + places[0, 1:]).flatten(0, 1)


def _after(_: Context, last: Tensor, first: Tensor) -> Tensor:
    """Two linear maps as one."""
    return (last.double() @ first.double()).to(last.dtype)


def _bias_after(_: Context, last: Tensor, first_bias: Tensor, last_bias: Tensor) -> Tensor:
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
    ("embed.prefix", "embeddings.cls_token embeddings.position_embeddings", _class_token),
    *(("embed.prefix", f"embeddings.patch_embeddings.{name}.weight", _no_prefix) for name in ("projection", "proj")),
    ("embed.positions", "embeddings.position_embeddings embeddings.time_embeddings", _places_and_times),
    ("embed.positions", "embeddings.position_embeddings", _of_patches),
    ("embed.positions", "", fixed("positions")),
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
    ("blocks.{l}.attn.rotation", "", fixed("rotation")),
    *both("blocks.{l}.ln_time", "temporal_layernorm"),
    *both("blocks.{l}.time.qkv", "temporal_attention.attention.qkv"),
    ("blocks.{l}.time.out.weight", "temporal_dense.weight temporal_attention.output.dense.weight", _after),
    ("blocks.{l}.time.out.bias", "temporal_dense.weight temporal_attention.output.dense.bias temporal_dense.bias",
     _bias_after),
    *both("blocks.{l}.mlp.pre", "mlp.fc1", "intermediate.dense"),
    *both("blocks.{l}.mlp.out", "mlp.fc2", "output.dense"),
)  # fmt: skip
_HEAD: tuple[Row, ...] = (*both("readout.ln_final", "fc_norm"), *both("readout.head", "classifier"))


def _table(layout: Layout) -> tuple[Rule, ...]:
    return rules(*within(layout.trunk, (*_TRUNK, *within(f"{layout.layers}.{{l}}", _LAYER))), *_HEAD)


def answer(layouts: Mapping[str, Layout], module: Any, videos: Tensor) -> Tensor:
    """Logits; of an encoder without a head the class token, or the mean of the tokens if it has none."""
    layout = layouts[type(module).__name__]
    frames = videos.transpose(1, 2) if videos.ndim == 5 else videos[:, None]  # frame before channel
    output = module(frames, **layout.options)
    if "logits" in output:
        return output.logits
    tokens = output.last_hidden_state
    return tokens[:, 0] if layout.pool == "class" else tokens.mean(1)


def _blocks(layouts: Mapping[str, Layout], module: nn.Module) -> Sequence[nn.Module]:
    layout = layouts[type(module).__name__]
    return list(module.get_submodule(layout.trunk).get_submodule(layout.layers).children())


def _frames_first(module: Any, x_BTM: Tensor) -> Tensor:
    """The source's patches come place by place, ours frame by frame."""
    patches_BSFM = x_BTM[:, 1:].unflatten(1, (-1, module.config.num_frames))
    return torch.cat([x_BTM[:, :1], patches_BSFM.transpose(1, 2).flatten(1, 2)], dim=1)


def _sizes(frames: str, channels: str) -> Callable[[Any], dict[str, Any]]:
    """By the names of their configuration, whose tubelets may be absent (one frame) or hold the patch as well."""

    def fields(theirs: Any) -> dict[str, Any]:
        tubelet = getattr(theirs, "tubelet_size", 1)
        tubelet, *patch = (tubelet,) if isinstance(tubelet, int) else tubelet
        return {
            "image_size": getattr(theirs, "image_size", None) or theirs.crop_size,
            "patch_size": tuple(patch) or theirs.patch_size,
            "channels": getattr(theirs, channels),
            "frames": getattr(theirs, frames),
            "tubelet": tubelet,
        }

    return fields


def _family(name: str, file: str, order: Any = Family.order, **layouts: Layout) -> Family:
    return Family(
        name=name,
        library="transformers",
        classes=tuple(f"transformers.models.{file}.{kind}" for kind in layouts),
        read=partial(read, layouts),
        answer=partial(answer, layouts),
        blocks=partial(_blocks, layouts),
        order=order,
    )


_USUAL = _sizes("num_frames", "num_channels")
_JEPA = Layout(_sizes("frames_per_clip", "in_chans"), "encoder", "layer", "mean", {"skip_predictor": True})
FAMILIES: tuple[Family, ...] = (
    _family(
        "ViViT",
        "vivit.modeling_vivit",
        VivitModel=Layout(_USUAL, "", "layers"),
        VivitForVideoClassification=Layout(_USUAL, "vivit", "layers"),
    ),
    _family(
        "VideoMAE",
        "videomae.modeling_videomae",
        VideoMAEModel=Layout(_USUAL, pool="mean"),
        VideoMAEForVideoClassification=Layout(_USUAL, "videomae", pool="mean"),
    ),
    _family(
        "TimeSformer",
        "timesformer.modeling_timesformer",
        _frames_first,
        TimesformerModel=Layout(_USUAL),
        TimesformerForVideoClassification=Layout(_USUAL, "timesformer"),
    ),
    _family(
        "V-JEPA 2",
        "vjepa2.modeling_vjepa2",
        VJEPA2Model=_JEPA,
        VJEPA2ForVideoClassification=_JEPA,  # refused, and told why
    ),
)
