"""transformers' video classes, small, in every variation that their configurations have: name -> a builder."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import transformers
from torch import nn

SMALL: Mapping[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, "num_labels": 5,
    "image_size": 8, "patch_size": 4, "num_frames": 4,
}  # fmt: skip
OBLONG: Mapping[str, Any] = {"image_size": (8, 12), "num_channels": 2}
JEPA: Mapping[str, Any] = {
    "hidden_size": 54, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 0.5, "crop_size": 12,
    "patch_size": 4, "frames_per_clip": 4, "pred_hidden_size": 12, "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1, "num_pooler_layers": 1, "num_labels": 5,
}  # fmt: skip


def build(kind: str, **changes: Any) -> nn.Module:
    """In evaluation mode, its weights as transformers draws them. `pooler` is an argument of the model's, if given."""
    name = kind.removesuffix("Model").removesuffix("ForVideoClassification")
    arguments = {"add_pooling_layer": changes.pop("pooler")} if "pooler" in changes else {}
    fields = {**(JEPA if name == "VJEPA2" else SMALL), **changes}
    if name == "Vivit":
        fields = {"tubelet_size": [2, 4, 4], **{k: v for k, v in fields.items() if k != "patch_size"}}
    return getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**fields), **arguments).eval()


VARIATIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "VivitModel": {
        "": {},
        "no pooler": {"pooler": False},
        "no biases of q, k, v": {"qkv_bias": False},
        "tubelets": {"tubelet_size": [1, 2, 4], "hidden_act": "gelu", "layer_norm_eps": 1e-3},
        "not square": OBLONG,
    },
    "VivitForVideoClassification": {"": {}, "one frame": {"num_frames": 1, "tubelet_size": [1, 4, 4]}},
    "VideoMAEModel": {
        "": {},
        "norm before the mean": {"use_mean_pooling": False},
        "no biases of q, k, v": {"qv_bias": False},
        "not square": {**OBLONG, "tubelet_size": 4, "patch_size": (4, 2)},
    },
    "VideoMAEForVideoClassification": {
        "": {},
        "no labels": {"num_labels": 0},
        "eps": {"layer_norm_eps": 1e-3},
        "first patch": {"use_mean_pooling": False},
    },
    "TimesformerModel": {
        "": {},
        "joint": {"attention_type": "joint_space_time"},
        "space only": {"attention_type": "space_only"},
        "no biases of q, k, v": {"qkv_bias": False, "layer_norm_eps": 1e-3},
        "drop path": {"drop_path_rate": 1, "num_frames": 3, "patch_size": 2, "num_channels": 1},
    },
    "TimesformerForVideoClassification": {"": {}, "relu": {"hidden_act": "relu"}},
    "VJEPA2Model": {
        "": {},
        "all of a head is rotated": {"hidden_size": 36, "num_attention_heads": 2, "tubelet_size": 1},
        "no biases of q, k, v": {"qkv_bias": False, "in_chans": 1},
        "one tubelet": {"frames_per_clip": 2, "layer_norm_eps": 1e-3},
    },
    "VJEPA2ForVideoClassification": {"": {}},
}
CASES: dict[str, Callable[[], nn.Module]] = {
    f"{kind}, {name}" if name else kind: partial(build, kind, **changes)
    for kind, variations in VARIATIONS.items()
    for name, changes in variations.items()
}
REFUSED: Mapping[str, str] = {
    "VJEPA2ForVideoClassification": "attentive pooling is not supported: it has transformer blocks",
    "TimesformerModel, space only": "attention_type='space_only' is not supported",
    "VideoMAEForVideoClassification, first patch": "use_mean_pooling=False is not supported",
}
"""Those of them that are not exact: name -> the reason."""
