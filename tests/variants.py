"""Every form of the model that the configuration allows, small: one entry each, and the model of an entry.

Every parameter is drawn at random, those that start at 0 or 1 too, so that a test cannot pass because a part is idle.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prisma import ViT, ViTConfig
from prisma.config import TextConfig
from prisma.text import TextTower

BASE: Mapping[str, Any] = {
    "image_size": 6, "patch_size": 2, "channels": 2,
    "n_layers": 2, "d_model": 12, "n_heads": 3, "d_mlp": 10, "n_classes": 5,
}  # fmt: skip
VIDEO: Mapping[str, Any] = {"frames": 4, "tubelet": 2, "image_size": 4}
PLAIN: Mapping[str, Any] = {"class_token": False, "pool": "mean"}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "attention_only": {"d_mlp": 0},
    "norm_none": {"norm": "none"},
    "norm_post": {"norm": "post"},
    "attention_only_norm_none": {"d_mlp": 0, "norm": "none"},
    "attention_only_norm_post": {"d_mlp": 0, "norm": "post"},
    "one_layer": {"n_layers": 1},
    "no_layers": {"n_layers": 0, "pool": "class_mean"},
    "one_head": {"n_heads": 1},
    "no_class_token": PLAIN,
    "registers": {"registers": 3},
    "registers_only": {**PLAIN, "registers": 2},
    "pool_mean": {"pool": "mean"},
    "pool_class_mean": {"pool": "class_mean", "registers": 1},
    "pool_attention": {"pool": "attention"},
    "pool_attention_prefix": {"pool": "attention", "pool_prefix": True, "registers": 1},
    "pool_attention_norm_none": {**PLAIN, "pool": "attention", "norm": "none"},
    "pool_attention_attention_only": {"pool": "attention", "d_mlp": 0},
    "pool_attention_gated": {"pool": "attention", "gated_mlp": True, "norm_pooled": True},
    "quick_gelu": {"activation": "quick_gelu"},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu": {"activation": "relu"},
    "gated_silu": {"activation": "silu", "gated_mlp": True},
    "no_qkv_bias": {"qkv_bias": False},
    "qk_norm": {"qk_norm": True},
    "layer_scale": {"layer_scale": True},
    "norm_embed": {"norm_embed": True},
    "norm_embed_post": {"norm_embed": True, "norm": "post"},
    "norm_pooled_class": {"norm_pooled": True},
    "norm_pooled_mean": {"norm_pooled": True, "pool": "mean"},
    "no_positions": {"positions": False},
    "rotary": {"rotary": "axial", "n_heads": 2, "d_model": 16},  # two frequencies an axis
    "rotary_only": {"rotary": "axial", "positions": False, "rotary_base": 10},
    "rotary_table": {"rotary": "table", "registers": 1},
    "rotary_head_table": {"rotary": "head_table", "qk_norm": True},
    "score_bias": {"score_bias": True},
    "rms": {"norm_kind": "rms", "qk_norm": True, "norm_embed": True},
    "norm_res_post": {"norm": "res_post"},
    "sub_norms": {"norm_z": True, "norm_post": True, "gated_mlp": True},
    "parallel": {"parallel": True, "norm_kind": "rms"},
    "parallel_norm_none": {"parallel": True, "norm": "none"},
    "wide_heads": {"d_head": 6},
    "norm_patches": {"norm_patches": True, "norm_kind": "rms", **PLAIN},
    "no_norm_final": {"norm_final": False},
    "pool_prefix": {"pool": "mean", "pool_prefix": True, "registers": 1},
    "pool_distilled": {"pool": "distilled", "registers": 1},
    "pool_attention_heads": {"pool": "attention", "pool_heads": 2, "pool_d_mlp": 7},
    "pool_attention_sub_norms": {"pool": "attention", "norm_post": True},
    "pool_attention_bare": {"pool": "attention", "pool_d_mlp": 0},
    "no_head_bias": {"head_bias": False},
    "no_head": {"n_classes": 0},
    "no_head_class_mean": {"n_classes": 0, "pool": "class_mean"},
    "not_square": {"image_size": (4, 6), "patch_size": (2, 3), "channels": 1, "norm_eps": 1e-2},
    "cut_edge": {"image_size": (7, 6), "patch_size": (2, 4), "cut_edge": True},
    "not_square_rotary": {"image_size": (4, 6), "rotary": "axial", **PLAIN},
    "video": VIDEO,
    "video_one_tubelet": {**VIDEO, "tubelet": 4, "pool": "class_mean"},
    "video_rotary": {**VIDEO, "tubelet": 1, "frames": 2, "rotary": "axial", "d_model": 36, "registers": 1},
    "norm_final_eps": {"norm_final_eps": 0.1},
    "divided": {**VIDEO, "attention": "divided", "tubelet": 1},
    "divided_everything": {
        **VIDEO, "attention": "divided", "layer_scale": True, "norm_post": True, "qk_norm": True,
        "pool": "class_mean", "norm_kind": "rms", "d_head": 6, "gated_mlp": True,
    },
    "clip": {"norm_embed": True, "activation": "quick_gelu", "norm_pooled": True, "head_bias": False},
    "siglip": {**PLAIN, "pool": "attention", "activation": "gelu_tanh"},
    "dino": {"registers": 4, "layer_scale": True, "pool": "class_mean", "qkv_bias": False},
    "dino_rotary": {
        "registers": 2, "layer_scale": True, "rotary": "axial", "positions": False,
        "gated_mlp": True, "activation": "silu",
    },
    "large": {"qk_norm": True, "rotary": "axial", "gated_mlp": True, "pool": "attention", "layer_scale": True},
    "everything_post": {
        "norm": "post", "qk_norm": True, "layer_scale": True, "gated_mlp": True, "registers": 1,
        "pool": "class_mean", "norm_embed": True,
    },
}  # fmt: skip

NOTHING_NEW: Mapping[str, str] = {
    "attention_only_norm_none": "attention_only and norm_none, each without the other",
    "attention_only_norm_post": "attention_only and norm_post, each without the other",
    "one_layer": "base has a first and a last layer, no_layers none",
    "one_head": "analyses go over heads, whatever their number",
    "registers": "pool_class_mean, registers_only, dino",
    "pool_mean": "norm_pooled_mean, with a class token; no_class_token, without",
    "pool_attention_attention_only": "pool_attention_bare",
    "quick_gelu": "clip; and analyses call the MLP, whatever its activation",
    "gelu_tanh": "analyses call the MLP, whatever its activation",
    "relu": "analyses call the MLP, whatever its activation",
    "gated_silu": "sub_norms and pool_attention_gated, with another activation",
    "no_qkv_bias": "dino",
    "qk_norm": "rotary_head_table, rms",
    "layer_scale": "dino, everything_post",
    "norm_embed": "clip",
    "norm_embed_post": "everything_post",
    "norm_pooled_class": "clip",
    "no_positions": "dino_rotary",
    "rotary": "dino_rotary; the angles are those of a table to whoever calls the attention",
    "rotary_only": "dino_rotary",
    "rotary_table": "rotary_head_table",
    "parallel_norm_none": "parallel and norm_none, each without the other",
    "no_head_bias": "clip",
    "not_square": "cut_edge, which is not square either; the epsilon is inside the norm",
    "not_square_rotary": "cut_edge, dino_rotary",
    "video_one_tubelet": "video",
    "video_rotary": "video, dino_rotary",
    "norm_final_eps": "the epsilon is inside the norm, which analyses read from the module",
    "siglip": "pool_attention and no_class_token",
    "large": "pool_attention, dino_rotary, rotary_head_table",
}
"""Forms that are new to the model and to nothing that only uses it -> the forms that have the same in them.

The tests of the model (forward, sites, runs, edits, checkpoints) take all VARIANTS.
"""

ANALYSED = [name for name in VARIANTS if name not in NOTHING_NEW]
"""The forms for the tests of analyses: each branch of the model is in one of them."""
WITH_LAYERS = [name for name in ANALYSED if VARIANTS[name].get("n_layers") != 0]
WITH_CLASSES = [name for name in ANALYSED if VARIANTS[name].get("n_classes") != 0]

TEXT_BASE: Mapping[str, Any] = {
    "vocabulary": 9, "context": 5, "n_layers": 2, "d_model": 12, "n_heads": 3, "d_mlp": 10, "n_classes": 4,
}  # fmt: skip
TEXTS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "attention_only": {"d_mlp": 0},
    "not_causal": {"causal": False},
    "end": {"end": 6},
    "end_not_causal": {"end": 6, "causal": False},
    "first": {"pool": "first", "causal": False},  # if causal, it sees itself alone
    "last": {"pool": "last"},
    "last_not_causal": {"pool": "last", "causal": False},
    "head_bias": {"head_bias": True},
    "no_head": {"n_classes": 0},
    "norm_none": {"norm": "none"},
    "norm_post": {"norm": "post"},
    "norm_res_post": {"norm": "res_post"},
    "rms": {"norm_kind": "rms", "qk_norm": True},
    "layer_scale": {"layer_scale": True},
    "qk_norm": {"qk_norm": True},
    "sub_norms": {"norm_z": True, "norm_post": True, "gated_mlp": True},
    "parallel": {"parallel": True, "qkv_bias": False},
    "wide_heads": {"d_head": 6},
    "rotary_table": {"rotary": "table"},
    "score_bias": {"score_bias": True, "causal": False},
    "quick_gelu": {"activation": "quick_gelu"},
}


def config_of(variant: str, **changes: Any) -> ViTConfig:
    return ViTConfig(**{**BASE, **VARIANTS[variant], **changes})


def model_of(variant: str, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> ViT:
    """In evaluation mode, every parameter random, in float64 unless told otherwise."""
    return _copy_of_drawn(ViT, config_of(variant, **changes), dtype, seed)


def tower_of(variant: str, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> TextTower:
    """In evaluation mode, every parameter random, in float64 unless told otherwise."""
    return _copy_of_drawn(TextTower, TextConfig(**{**TEXT_BASE, **TEXTS[variant], **changes}), dtype, seed)


Model = TypeVar("Model", bound=nn.Module)


def _copy_of_drawn(kind: Callable[[Any], Model], config: Any, dtype: torch.dtype, seed: int) -> Model:
    """A model of the caller's own, and torch's random numbers as they are after its weights were drawn."""
    model, random = _drawn_once(kind, config, dtype, seed)
    torch.set_rng_state(random)
    return copied(model)


@cache
def _drawn_once(kind: Callable[[Any], Model], config: Any, dtype: torch.dtype, seed: int) -> tuple[Model, Tensor]:
    torch.manual_seed(seed)
    with default_dtype(dtype):
        model = drawn(kind(config).eval())
    return model, torch.get_rng_state()


def copied(module: Model) -> Model:
    """What `deepcopy` gives of modules that share no weights, in a tenth of the time."""
    new = object.__new__(type(module))
    new.__dict__ = {name: x.copy() if isinstance(x, dict | set) else x for name, x in module.__dict__.items()}
    parts = new.__dict__
    parts["_modules"] = {name: x if x is None else copied(x) for name, x in module._modules.items()}
    parts["_buffers"] = {name: x if x is None else x.clone() for name, x in module._buffers.items()}
    parts["_parameters"] = {
        name: x if x is None else nn.Parameter(x.detach().clone(), x.requires_grad)
        for name, x in module._parameters.items()
    }
    return new


@torch.no_grad()
def drawn(model: Model) -> Model:
    """The model with every parameter random."""
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.4 + (parameter == 1))  # norms around 1, all else around 0
    for buffer in (b for name, b in model.named_buffers() if name in model.state_dict()):
        buffer.copy_(torch.randn_like(buffer))
    return model


def images_of(model: ViT, n: int = 2, seed: int = 1) -> Tensor:
    """[n, channel, (frame,) height, width] of noise, in the precision of the model."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    return torch.randn(n, *model.config.input_shape, generator=generator, dtype=dtype)


def ids_of(tower: TextTower, n: int = 3, seed: int = 1) -> Tensor:
    """[n, context] of noise; each prompt has an end-of-text token (6) somewhere, and tokens after it."""
    generator = torch.Generator().manual_seed(seed)
    c = tower.config
    ids = torch.randint(0, 6, (n, c.context), generator=generator)
    ids[torch.arange(n), torch.arange(n) % (c.context - 2) + 1] = 6
    return ids


def largest(x: Tensor) -> float:
    return x.abs().max().item()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
