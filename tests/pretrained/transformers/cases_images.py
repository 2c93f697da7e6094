"""transformers' image classes, small, in every variation that their configurations have: name -> a builder."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

SMALL: Mapping[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "image_size": 12, "patch_size": 4, "num_labels": 5,
}  # fmt: skip
OBLONG: Mapping[str, Any] = {"image_size": (8, 12), "patch_size": (4, 2), "num_channels": 1}
MAE: Mapping[str, Any] = {
    "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 12,
}  # fmt: skip
DINO2: Mapping[str, Any] = {"mlp_ratio": 2, "layerscale_value": 0.5}
DINO3: Mapping[str, Any] = {"num_register_tokens": 2, "layerscale_value": 0.5}
BOTH: Mapping[str, Any] = {"use_relative_position_bias": True, "use_shared_relative_position_bias": True}


def build(kind: str, config: str, **changes: Any) -> nn.Module:
    """In evaluation mode, its weights as transformers draws them. `pooler` is an argument of the model's, if given."""
    arguments = {"add_pooling_layer": changes.pop("pooler")} if "pooler" in changes else {}
    fields = {**SMALL, **changes}
    return getattr(transformers, kind)(getattr(transformers, f"{config}Config")(**fields), **arguments).eval()


class ExactRMSNorm(nn.Module):
    """AIMv2's norm without its detour by float32, which no parity in float64 could see through."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def aimv2(**changes: Any) -> nn.Module:
    module = build("Aimv2VisionModel", "Aimv2Vision", **changes)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "Aimv2RMSNorm":
                setattr(parent, name, ExactRMSNorm(child))
    ExactRMSNorm.__name__ = "Aimv2RMSNorm"  # what the reader knows
    ExactRMSNorm.__module__ = "transformers.models.aimv2.modeling_aimv2"
    return module


VARIATIONS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "vit": ("ViTModel", "ViT", {}),
    "vit_no_pooler": ("ViTModel", "ViT", {"pooler": False, "qkv_bias": False}),
    "vit_oblong": ("ViTModel", "ViT", OBLONG),
    "vit_classes": ("ViTForImageClassification", "ViT", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    "vit_wide_heads": ("ViTForImageClassification", "ViT", {"head_dim": 6, "hidden_act": "quick_gelu"}),
    "vit_no_classes": ("ViTForImageClassification", "ViT", {"num_labels": 0, "hidden_act": "relu"}),
    "deit": ("DeiTModel", "DeiT", OBLONG),
    "deit_classes": ("DeiTForImageClassification", "DeiT", {"hidden_act": "silu"}),
    "deit_teacher": ("DeiTForImageClassificationWithTeacher", "DeiT", {"qkv_bias": False}),
    "dinov2": ("Dinov2Model", "Dinov2", {**DINO2, "use_mask_token": False}),
    "dinov2_gated": ("Dinov2Model", "Dinov2", {**DINO2, "use_swiglu_ffn": True}),
    "dinov2_classes": ("Dinov2ForImageClassification", "Dinov2", DINO2),
    "dinov2_no_classes": ("Dinov2ForImageClassification", "Dinov2", {**DINO2, "num_labels": 0}),
    "dinov2_oblong": ("Dinov2Model", "Dinov2", {**DINO2, "image_size": (4, 16), "patch_size": (4, 4)}),
    "dinov2_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegisters", {**DINO2, "num_register_tokens": 3}),
    "dinov2_registers_classes": ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegisters", DINO2),
    "dinov2_registers_gated": (
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegisters", {**DINO2, "use_swiglu_ffn": True},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViT", DINO3),
    "dinov3_oblong": ("DINOv3ViTModel", "DINOv3ViT", {**DINO3, **OBLONG, "num_register_tokens": 0}),
    "dinov3_gated": ("DINOv3ViTModel", "DINOv3ViT", {**DINO3, "use_gated_mlp": True, "hidden_act": "silu"}),
    "dinov3_few_biases": (
        "DINOv3ViTModel", "DINOv3ViT",
        {**DINO3, "query_bias": False, "proj_bias": False, "mlp_bias": False, "rope_theta": 10.0},
    ),
    "dinov3_key_bias": ("DINOv3ViTModel", "DINOv3ViT", {**DINO3, "key_bias": True, "value_bias": False}),
    "dinov3_no_biases": ("DINOv3ViTModel", "DINOv3ViT", {**DINO3, "query_bias": False, "value_bias": False}),
    "mae": ("ViTMAEModel", "ViTMAE", MAE),
    "mae_no_bias": ("ViTMAEModel", "ViTMAE", {**MAE, "qkv_bias": False}),
    "mae_pretraining": ("ViTMAEForPreTraining", "ViTMAE", MAE),
    "msn": ("ViTMSNModel", "ViTMSN", OBLONG),
    "msn_classes": ("ViTMSNForImageClassification", "ViTMSN", {}),
    "ijepa": ("IJepaModel", "IJepa", OBLONG),
    "ijepa_pooler": ("IJepaModel", "IJepa", {"pooler": True}),
    "ijepa_classes": ("IJepaForImageClassification", "IJepa", {}),
    "beit": ("BeitModel", "Beit", {"use_relative_position_bias": True}),
    "beit_no_pooler": ("BeitModel", "Beit", {"pooler": False, "use_absolute_position_embeddings": True}),
    "beit_class_token": ("BeitModel", "Beit", {"use_mean_pooling": False, "use_mask_token": True}),
    "beit_shared": ("BeitForImageClassification", "Beit", {"use_shared_relative_position_bias": True}),
    "beit_everything": (
        "BeitForImageClassification", "Beit",
        {**BOTH, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0},
    ),
    "beit_oblong": ("BeitForImageClassification", "Beit", {**BOTH, "image_size": (8, 12)}),
    "data2vec": ("Data2VecVisionModel", "Data2VecVision", {"use_relative_position_bias": True}),
    "data2vec_class_token": ("Data2VecVisionModel", "Data2VecVision", {"use_mean_pooling": False, **BOTH}),
    "data2vec_classes": (
        "Data2VecVisionForImageClassification", "Data2VecVision",
        {"use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True},
    ),
    "data2vec_oblong": ("Data2VecVisionForImageClassification", "Data2VecVision", {**BOTH, "image_size": (8, 12)}),
    "data2vec_eager": (
        "Data2VecVisionForImageClassification", "Data2VecVision",
        {"attn_implementation": "eager", "use_relative_position_bias": True, "layer_scale_init_value": 0.0},
    ),
}  # fmt: skip

CASES: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(build, kind, config, **changes) for name, (kind, config, changes) in VARIATIONS.items()},
    "aimv2": partial(aimv2),
    "aimv2_native": partial(aimv2, is_native=True, use_head=False, mlp_bias=True),
    "aimv2_biases": partial(aimv2, qkv_bias=True, hidden_act="gelu"),
}
