"""transformers' image classes: encoders and classifiers, which `encoder` reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prisma.pretrained.family import Family, full_name
from prisma.pretrained.parts import sides
from prisma.pretrained.transformers.encoder import read, resamples
from prisma.pretrained.transformers.layout import Layout, family


def answer(layout: Layout, module: Any, images: Tensor) -> Tensor:
    """A classifier's logits; else the encoder's pooled output, or pooled tokens if its pooling is not ours."""
    trunk = layout.trunk_of(module)
    if hasattr(module.config, "mask_ratio"):
        return _pooled(layout, _unmasked(trunk, images))
    output = module(images, **_resampling(trunk, images))
    if "logits" in output:
        return output.logits
    pooled = output.get("pooler_output")
    if pooled is not None and not hasattr(getattr(module, "pooler", None), "dense"):
        return pooled
    return _pooled(layout, output.last_hidden_state)


def _unmasked(trunk: Any, images: Tensor) -> Tensor:
    """The tokens of MAE's encoder when no patch is hidden or moved."""
    n_patches = trunk.embeddings.patch_embeddings(images[:1]).shape[1]
    order = torch.arange(n_patches, device=images.device).expand(len(images), -1)
    with _no_masking(trunk.config):
        return trunk(images, noise=order, **_resampling(trunk, images)).last_hidden_state


def _pooled(layout: Layout, tokens: Tensor) -> Tensor:
    return tokens.mean(1) if layout.pool == "mean" else tokens[:, 0]


def _resampling(trunk: Any, images: Tensor) -> dict[str, bool]:
    """The arguments that the source needs for images of another size than it was built for."""
    embeddings = trunk.embeddings
    other = resamples(embeddings) and sides(embeddings.image_size) != tuple(images.shape[-2:])
    return {"interpolate_pos_encoding": True} if other else {}


def takes_any_size(module: nn.Module) -> bool:
    """Whether the source's forward takes images of any size without an argument: each call computes positions."""
    if full_name(module) not in LAYOUTS:
        return False
    embeddings = LAYOUTS[full_name(module)].trunk_of(module).embeddings
    return not resamples(embeddings) and not hasattr(embeddings, "position_embedding")


@contextmanager
def _no_masking(config: Any) -> Iterator[None]:
    before, config.mask_ratio = config.mask_ratio, 0.0
    try:
        yield
    finally:
        config.mask_ratio = before


_CLASSES: Mapping[tuple[str, str], Mapping[str, Layout]] = {
    ("ViT", "vit.modeling_vit"): {"ViTModel": Layout(), "ViTForImageClassification": Layout("vit")},
    ("DeiT", "deit.modeling_deit"): {
        "DeiTModel": Layout(),
        "DeiTForImageClassification": Layout("deit"),
        "DeiTForImageClassificationWithTeacher": Layout("deit", pool="distilled"),
    },
    ("DINOv2", "dinov2.modeling_dinov2"): {
        "Dinov2Model": Layout(layers="encoder.layer"),
        "Dinov2ForImageClassification": Layout("dinov2", "encoder.layer", "class_mean"),
    },
    ("DINOv2 with registers", "dinov2_with_registers.modeling_dinov2_with_registers"): {
        "Dinov2WithRegistersModel": Layout(layers="encoder.layer"),
        "Dinov2WithRegistersForImageClassification": Layout("dinov2_with_registers", "encoder.layer", "class_mean"),
    },
    ("DINOv3", "dinov3_vit.modeling_dinov3_vit"): {"DINOv3ViTModel": Layout(layers="model.layer")},
    ("MAE", "vit_mae.modeling_vit_mae"): {"ViTMAEModel": Layout(), "ViTMAEForPreTraining": Layout("vit")},
    ("MSN", "vit_msn.modeling_vit_msn"): {"ViTMSNModel": Layout(), "ViTMSNForImageClassification": Layout("vit")},
    ("I-JEPA", "ijepa.modeling_ijepa"): {
        "IJepaModel": Layout(pool="mean"),
        "IJepaForImageClassification": Layout("ijepa", pool="mean"),
    },
    ("BEiT", "beit.modeling_beit"): {"BeitModel": Layout(), "BeitForImageClassification": Layout("beit")},
    ("Data2Vec", "data2vec.modeling_data2vec_vision"): {
        "Data2VecVisionModel": Layout(layers="encoder.layer"),
        "Data2VecVisionForImageClassification": Layout("data2vec_vision", "encoder.layer"),
    },
    ("AIMv2", "aimv2.modeling_aimv2"): {"Aimv2VisionModel": Layout(layers="encoder.layers", pool="mean")},
}
"""(Family, file of transformers) -> class -> where it has its parts."""

LAYOUTS: Mapping[str, Layout] = {
    f"transformers.models.{file}.{kind}": layout
    for (_, file), layouts in _CLASSES.items()
    for kind, layout in layouts.items()
}

FAMILIES: tuple[Family, ...] = tuple(
    family(name, file, layouts, read, answer) for (name, file), layouts in _CLASSES.items()
)
