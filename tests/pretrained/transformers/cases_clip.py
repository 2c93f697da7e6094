"""transformers' image-text pairs, small: every class and every variation of its configuration that changes the forward.

Names -> functions that build the module. `CASES` are asked for images, `TEXT_CASES` for token ids.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import transformers
from torch import nn

VISION: Mapping[str, Any] = {
    "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 12,
    "patch_size": 4,
}  # fmt: skip
TEXT: Mapping[str, Any] = {
    "hidden_size": 18, "intermediate_size": 22, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 30,
    "max_position_embeddings": 9, "eos_token_id": 7, "bos_token_id": 6, "pad_token_id": 1,
}  # fmt: skip
NAFLEX: Mapping[str, Any] = {**{k: v for k, v in VISION.items() if k != "image_size"}, "num_patches": 9}
PAIRS = ("CLIP", "MetaClip2", "Siglip", "Siglip2", "OwlViT", "Owlv2")


def vision_config(name: str, **changes: Any) -> Any:
    base = NAFLEX if name == "Siglip2" else VISION
    return getattr(transformers, f"{name}VisionConfig")(**{**base, **changes})


def text_config(name: str, **changes: Any) -> Any:
    return getattr(transformers, f"{name}TextConfig")(**{**TEXT, **changes})


def vision(kind: str, name: str, **changes: Any) -> nn.Module:
    return getattr(transformers, kind)(vision_config(name, **changes)).eval()


def text(kind: str, name: str, **changes: Any) -> nn.Module:
    return getattr(transformers, kind)(text_config(name, **changes)).eval()


def whole(
    kind: str,
    name: str,
    images: Mapping[str, Any] | None = None,
    texts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> nn.Module:
    """A module of both sides, or an image classifier, whose configuration is that of a pair."""
    sides = {
        "vision_config": vision_config(name, **(images or {})).to_dict(),
        "text_config": text_config(
            name, **({"projection_size": 24} if "ig" in name else {}), **(texts or {})
        ).to_dict(),
    }
    return getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**{**sides, **changes})).eval()


CASES: dict[str, Callable[[], nn.Module]] = {
    **{f"{name}VisionModel": partial(vision, f"{name}VisionModel", name) for name in PAIRS},
    **{f"{name}Model": partial(whole, f"{name}Model", name) for name in PAIRS},
    **{
        f"{name}ForImageClassification": partial(whole, f"{name}ForImageClassification", name, num_labels=5)
        for name in ("CLIP", "MetaClip2", "Siglip", "Siglip2")
    },
    **{
        f"{name}VisionModelWithProjection": partial(vision, f"{name}VisionModelWithProjection", name, projection_dim=11)
        for name in ("CLIP", "MetaClip2")
    },
    "CLIPModel, projection": partial(whole, "CLIPModel", "CLIP", projection_dim=13),
    "CLIPForImageClassification, no labels": partial(whole, "CLIPForImageClassification", "CLIP", num_labels=0),
    "CLIPVisionModel, gelu, one channel": partial(
        vision, "CLIPVisionModel", "CLIP", hidden_act="gelu", num_channels=1, layer_norm_eps=1e-3
    ),
    "SiglipVisionModel, no head": partial(vision, "SiglipVisionModel", "Siglip", vision_use_head=False),
    "SiglipModel, gelu": partial(whole, "SiglipModel", "Siglip", {"hidden_act": "gelu", "layer_norm_eps": 1e-3}),
    "Siglip2VisionModel, no head": partial(vision, "Siglip2VisionModel", "Siglip2", vision_use_head=False),
}
TEXT_CASES: dict[str, Callable[[], nn.Module]] = {
    **{f"{name}TextModel": partial(text, f"{name}TextModel", name) for name in PAIRS},
    **{f"{name}Model": partial(whole, f"{name}Model", name) for name in PAIRS},
    **{
        f"{name}TextModelWithProjection": partial(text, f"{name}TextModelWithProjection", name, projection_dim=11)
        for name in ("CLIP", "MetaClip2")
    },
    "CLIPTextModel, eos 2": partial(text, "CLIPTextModel", "CLIP", eos_token_id=2),
    "MetaClip2TextModel, eos 2": partial(text, "MetaClip2TextModel", "MetaClip2", eos_token_id=2),
    "CLIPTextModel, gelu": partial(text, "CLIPTextModel", "CLIP", hidden_act="gelu", layer_norm_eps=1e-3),
    "SiglipTextModel, projection": partial(text, "SiglipTextModel", "Siglip", projection_size=11),
    "Aimv2TextModel": lambda: transformers.Aimv2TextModel(
        transformers.Aimv2TextConfig(
            **{name: size for name, size in TEXT.items() if name not in ("bos_token_id", "pad_token_id")}
        )
    ).eval(),
}
REFUSED: Mapping[str, str] = {
    "Aimv2TextModel": "attention mask depends on the other prompts of a batch is not supported"
}
"""Those of them that are not exact: name -> the reason."""
