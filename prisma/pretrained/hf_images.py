"""transformers' image classes: encoders bare and with a head for classes, whose parts `hf_trunk` reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prisma.pretrained.family import Family
from prisma.pretrained.hf_trunk import Layout, read, resamples, sides

Answer = Callable[[Layout, Any, Tensor], Tensor]


def answer(layout: Layout, module: Any, images: Tensor) -> Tensor:
    """Logits; of an encoder without a head its pooled output, or the pooled tokens where it has none that we have."""
    output = module(images, **_resampling(module.get_submodule(layout.trunk), images))
    if "logits" in output:
        return output.logits
    pooled = output.get("pooler_output")
    if pooled is not None and not hasattr(getattr(module, "pooler", None), "dense"):
        return pooled
    return _pooled(layout, output.last_hidden_state)


def unmasked(layout: Layout, module: Any, images: Tensor) -> Tensor:
    """The class token of MAE's encoder, which hides no patch here and keeps their order."""
    trunk = module.get_submodule(layout.trunk)
    order = torch.arange(_n_patches(trunk, images), device=images.device)
    with _nothing_hidden(trunk.config):
        output = trunk(images, noise=order.expand(len(images), -1), **_resampling(trunk, images))
    return _pooled(layout, output.last_hidden_state)


def _pooled(layout: Layout, tokens: Tensor) -> Tensor:
    return tokens.mean(1) if layout.pool == "mean" else tokens[:, 0]


def _n_patches(trunk: Any, images: Tensor) -> int:
    return trunk.embeddings.patch_embeddings(images[:1]).shape[1]


def _resampling(trunk: Any, images: Tensor) -> dict[str, bool]:
    """What the source wants to be told of images of another size than it was made for."""
    embeddings = trunk.embeddings
    other = resamples(embeddings) and sides(embeddings.image_size) != tuple(images.shape[-2:])
    return {"interpolate_pos_encoding": True} if other else {}


@contextmanager
def _nothing_hidden(config: Any) -> Iterator[None]:
    before, config.mask_ratio = config.mask_ratio, 0.0
    try:
        yield
    finally:
        config.mask_ratio = before


def _blocks(layouts: Mapping[str, Layout], module: nn.Module) -> Sequence[nn.Module]:
    layout = layouts[type(module).__name__]
    return list(module.get_submodule(layout.trunk).get_submodule(layout.layers).children())


def _family(name: str, file: str, layouts: Mapping[str, Layout], how: Answer = answer) -> Family:
    return Family(
        name=name,
        library="transformers",
        classes=tuple(f"transformers.models.{file}.{kind}" for kind in layouts),
        read=partial(read, layouts),
        answer=lambda module, images: how(layouts[type(module).__name__], module, images),
        blocks=partial(_blocks, layouts),
    )


FAMILIES: tuple[Family, ...] = (
    _family("ViT", "vit.modeling_vit", {"ViTModel": Layout(), "ViTForImageClassification": Layout("vit")}),
    _family(
        "DeiT",
        "deit.modeling_deit",
        {
            "DeiTModel": Layout(),
            "DeiTForImageClassification": Layout("deit"),
            "DeiTForImageClassificationWithTeacher": Layout("deit", pool="distilled"),
        },
    ),
    _family(
        "DINOv2",
        "dinov2.modeling_dinov2",
        {
            "Dinov2Model": Layout(layers="encoder.layer"),
            "Dinov2ForImageClassification": Layout("dinov2", "encoder.layer", "class_mean"),
        },
    ),
    _family(
        "DINOv2 with registers",
        "dinov2_with_registers.modeling_dinov2_with_registers",
        {
            "Dinov2WithRegistersModel": Layout(layers="encoder.layer"),
            "Dinov2WithRegistersForImageClassification": Layout("dinov2_with_registers", "encoder.layer", "class_mean"),
        },
    ),
    _family("DINOv3", "dinov3_vit.modeling_dinov3_vit", {"DINOv3ViTModel": Layout(layers="model.layer")}),
    _family(
        "MAE",
        "vit_mae.modeling_vit_mae",
        {"ViTMAEModel": Layout(), "ViTMAEForPreTraining": Layout("vit")},
        unmasked,
    ),
    _family(
        "MSN", "vit_msn.modeling_vit_msn", {"ViTMSNModel": Layout(), "ViTMSNForImageClassification": Layout("vit")}
    ),
    _family(
        "I-JEPA",
        "ijepa.modeling_ijepa",
        {"IJepaModel": Layout(pool="mean"), "IJepaForImageClassification": Layout("ijepa", pool="mean")},
    ),
    _family("BEiT", "beit.modeling_beit", {"BeitModel": Layout(), "BeitForImageClassification": Layout("beit")}),
    _family(
        "Data2Vec",
        "data2vec.modeling_data2vec_vision",
        {
            "Data2VecVisionModel": Layout(layers="encoder.layer"),
            "Data2VecVisionForImageClassification": Layout("data2vec_vision", "encoder.layer"),
        },
    ),
    _family("AIMv2", "aimv2.modeling_aimv2", {"Aimv2VisionModel": Layout(layers="encoder.layers", pool="mean")}),
)
