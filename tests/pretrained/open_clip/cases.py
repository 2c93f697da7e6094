"""Every configuration that open_clip comes with, small: name -> a function that builds the pair, every flag kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from unittest.mock import patch

import open_clip
import timm
from open_clip.coca_model import CoCa
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CustomTextCLIP
from torch import nn
from transformers import RobertaConfig

EMBED = 96
TEXT: dict[str, Any] = {"context_length": 7, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2}
VIT: dict[str, Any] = {"width": 24, "head_width": 8, "layers": 2}
RESNET: dict[str, Any] = {"width": 8, "layers": [1, 1, 1, 1], "image_size": 64}
STAGES: dict[str, Any] = {
    "convnext": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
    "fastvit": {"layers": (1, 1, 1, 1), "embed_dims": (32, 32, 32, 32)},
    "swin": {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
}
NARROW: dict[str, Any] = {"depth": 2, "embed_dim": EMBED, "num_heads": 3}
TRANSFORMERS = (NARROW, {**NARROW, "attn_pool_num_heads": 3}, {**NARROW, "num_heads": 4})  # the first that fits
create = timm.create_model


def small_trunk(name: str, **kwargs: Any) -> nn.Module:
    """`timm.create_model`, in two layers of width 96, on 4 x 3 patches where they are the image's."""
    family = name.split("_")[0]
    if family in STAGES:
        return create(name, **kwargs, **STAGES[family])
    for sizes in TRANSFORMERS:
        with suppress(AssertionError, RuntimeError, TypeError, ValueError):
            wide = create(name, **kwargs, **sizes, img_size=224)
            rest = wide.default_cfg["input_size"][1] % wide.patch_embed.patch_size[0]  # of images with torn patches
            size = tuple(n * patch + rest for n, patch in zip((4, 3), wide.patch_embed.patch_size, strict=True))
            return create(name, **kwargs, **sizes, img_size=size)
    return create(name, **kwargs, depth=1)  # patches of a convolutional network, as wide as that


@contextmanager
def small_trunks() -> Iterator[None]:
    with patch("open_clip.timm_model.timm.create_model", small_trunk):
        yield


def small_config(name: str) -> dict[str, Any]:
    """The published configuration; only the sizes differ."""
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if isinstance(vision.get("layers"), list):
        vision |= RESNET
    elif "timm_model_name" not in vision:
        vision |= {**VIT, "image_size": (3 * vision["patch_size"], 2 * vision["patch_size"])}
    config["text_cfg"] = {**text, **TEXT}
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] = {"context_length": 7, "width": 16, "heads": 2, "layers": 1}
    return {**config, "embed_dim": EMBED}


def build(name: str) -> nn.Module:
    """In evaluation mode, its weights as open_clip draws them."""
    config = small_config(name)
    foreign = config["text_cfg"].pop("hf_model_name", None)
    custom = config.pop("custom_text", False) or foreign is not None
    kind = CoCa if "multimodal_cfg" in config else CustomTextCLIP if custom else CLIP
    with small_trunks():
        model = kind(**config)
    if foreign is not None:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        roberta = RobertaConfig(**sizes, vocab_size=40)
        model.text = HFTextEncoder(
            "", EMBED, roberta, config["text_cfg"].get("hf_pooler_type", "mean_pooler"), "linear"
        )
    return model.eval()


CASES: dict[str, Callable[[], nn.Module]] = {name: partial(build, name) for name in open_clip.list_models()}
