"""The image side of transformers' image-text pairs: CLIP, MetaCLIP 2, SigLIP, SigLIP 2, OWL-ViT.

Sources: as in `text`; Tschannen et al. 2502.14786 (SigLIP 2, whose patches may form any grid).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from prisma.config import ViTConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.family import Family
from prisma.pretrained.parts import activation, has_cut_edge, n_classes, sides
from prisma.pretrained.rules import Context, Conversion, Row, both, inside, rules
from prisma.pretrained.tensors import chunk, first_row, flat, no_prefix
from prisma.pretrained.transformers.layout import Layout, family
from prisma.pretrained.transformers.text import ENCODER_LAYERS, LAYERS, layer_fields


def read(layout: Layout, module: Any) -> Conversion:
    """The conversion of an image tower, or of the image side of a pair. Raises UnsupportedModelError."""
    trunk, head = layout.trunk_of(module), layout.head_of(module)
    embeddings, class_token = trunk.embeddings, hasattr(trunk.embeddings, "class_embedding")
    averages = layout.pool == "mean"  # a classifier, which does not use the pooling of its encoder
    attention = hasattr(trunk, "head") and not averages
    layers = layer_fields(layout, module)
    if attention and not (trunk.use_head and activation(trunk.head.mlp.activation_fn) == layers["activation"]):
        raise UnsupportedModelError(
            "attention pooling that the source does not use, or whose activation differs from that of the layers, "
            "is not supported"
        )
    size = image_sides(trunk)
    config = ViTConfig(
        image_size=size,
        patch_size=embeddings.patch_size,
        cut_edge=has_cut_edge(size, embeddings.patch_size),
        channels=trunk.config.num_channels,
        n_classes=n_classes(head),
        head_bias=n_classes(head) > 0 and head.bias is not None,
        class_token=class_token,
        norm_embed=class_token,
        norm_final=not (class_token and averages),
        norm_pooled=class_token and not averages,
        pool="attention" if attention else "class" if class_token and not averages else "mean",
        pool_heads=trunk.head.attention.num_heads if attention else None,
        pool_d_mlp=trunk.head.mlp.fc1.out_features if attention else None,
        **layers,
    )
    head_rows = both("readout.head", layout.head) if layout.head else ()
    start = f"{layout.trunk}." if layout.trunk else ""
    own_pooling = (f"{start}head..*", f"{start}post_layernorm..*") if averages else ()
    table = rules(*inside(layout.trunk, _TABLE), *head_rows)
    return Conversion(config, table, (*_TEXT_SIDE, *own_pooling), {"positions": positions(trunk)})


def image_sides(trunk: Any) -> tuple[int, int]:
    """(height, width) in pixels of the images that the source takes."""
    size = getattr(trunk.config, "image_size", None)
    if size is None:  # patches may form any grid: take that of the positions
        return sides(trunk.embeddings.position_embedding_size * trunk.embeddings.patch_size)
    return sides(size)


@torch.no_grad()
def positions(trunk: Any) -> Tensor:
    """Positions [token, d_model], resampled by the source's own code if they belong to another image size."""
    embeddings, size = trunk.embeddings, image_sides(trunk)
    table, (height, width) = embeddings.position_embedding.weight, (side // embeddings.patch_size for side in size)
    if hasattr(embeddings, "resize_positional_embeddings"):
        if has_cut_edge(size, embeddings.patch_size):
            raise UnsupportedModelError(
                f"expected an image size that is a multiple of the patch size {embeddings.patch_size}; found {size}"
            )
        square = table.unflatten(0, (embeddings.position_embedding_size, -1))
        return embeddings.resize_positional_embeddings(square, torch.tensor([[height, width]]), height * width)[0]
    n_tokens = height * width + int(hasattr(embeddings, "class_embedding"))
    like = torch.empty(1, n_tokens, table.shape[1], device="meta")
    try:
        return embeddings.interpolate_pos_encoding(like, *size)[0]
    except RuntimeError:
        raise UnsupportedModelError(
            f"image_size={size} is not supported: the source cannot resample its {len(table)} positions to that size"
        ) from None


def _patch(context: Context, weight: Tensor) -> Tensor:
    """A convolution, or a linear map of patches whose pixels are ordered (row, column, channel)."""
    if weight.ndim == 4:
        return flat(context, weight)
    p, q = context.config.patch_sides
    return rearrange(weight, "m (p q c) -> m (c p q)", p=p, q=q)


def _patch_positions(context: Context, _: Tensor) -> Tensor:
    return context.facts["positions"][-context.config.n_patches :]


def _class_token(context: Context, token: Tensor, _: Tensor) -> Tensor:
    """The class token with its position, which in our models is part of the token."""
    return (token + context.facts["positions"][0])[None]


_TABLE: tuple[Row, ...] = (
    ("embed.patch.weight", "embeddings.patch_embedding.weight", _patch),
    ("embed.patch.bias", "embeddings.patch_embedding.bias"),
    ("embed.prefix", "embeddings.class_embedding embeddings.position_embedding.weight", _class_token),
    ("embed.prefix", "embeddings.patch_embedding.weight", no_prefix),
    ("embed.positions", "embeddings.position_embedding.weight", _patch_positions),
    *both("embed.ln_pre", "pre_layrnorm", "pre_layernorm"),  # CLIP spells it the first way
    *LAYERS,
    *both("readout.ln_final", "post_layernorm"),
    ("readout.attention_pool.query", "head.probe", first_row),
    *(
        (f"readout.attention_pool.{name}.{part}", f"head.attention.in_proj_{part}", chunk(i, 3))
        for i, name in enumerate("qkv")
        for part in ("weight", "bias")
    ),
    *both("readout.attention_pool.out", "head.attention.out_proj"),
    *both("readout.attention_pool.ln", "head.layernorm"),
    *both("readout.attention_pool.mlp.pre", "head.mlp.fc1"),
    *both("readout.attention_pool.mlp.out", "head.mlp.fc2"),
)
_TEXT_SIDE = (r"text_model\..*", r"text_projection\..*", "logit_scale", "logit_bias")


def answer(layout: Layout, module: Any, images: Tensor) -> Tensor:
    """A classifier's logits; else the image embedding before it is normalised to unit length."""
    trunk = layout.trunk_of(module)
    inputs = model_inputs(trunk, images)
    if layout.pool == "mean":
        return module(**inputs).logits
    output = trunk(**inputs)
    pooled = output.last_hidden_state.mean(1) if output.pooler_output is None else output.pooler_output
    return layout.head_of(module)(pooled) if layout.head else pooled


def model_inputs(trunk: Any, images: Tensor) -> dict[str, Any]:
    """The source's arguments for images [batch, channel, height, width]."""
    p = trunk.embeddings.patch_size
    height, width = (side // p for side in images.shape[-2:])
    if not hasattr(trunk.embeddings, "resize_positional_embeddings"):
        return {"pixel_values": images, "interpolate_pos_encoding": True}
    return {
        "pixel_values": rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p),
        "pixel_attention_mask": images.new_ones(len(images), height * width, dtype=torch.int32),
        "spatial_shapes": torch.tensor([[height, width]] * len(images)),
    }


_layout = partial(Layout, layers=ENCODER_LAYERS)


def _clip(name: str) -> dict[str, Layout]:
    """The classes of CLIP and of models built like it."""
    pair = _layout("vision_model", head="visual_projection")
    return {
        f"{name}VisionModel": _layout(),
        f"{name}VisionModelWithProjection": pair,
        f"{name}Model": pair,
        f"{name}ForImageClassification": _layout("vision_model", head="classifier", pool="mean"),
    }


def _siglip(name: str) -> dict[str, Layout]:
    """The classes of SigLIP, whose image side has no projection."""
    return {
        f"{name}VisionModel": _layout(),
        f"{name}Model": _layout("vision_model"),
        f"{name}ForImageClassification": _layout("vision_model", head="classifier", pool="mean"),
    }


def _owl(name: str) -> dict[str, Layout]:
    """The classes of OWL-ViT."""
    pair = _layout("vision_model", head="visual_projection")
    return {f"{name}VisionModel": _layout("vision_model"), f"{name}Model": pair}


_FILES: Mapping[tuple[str, str], Mapping[str, Layout]] = {
    ("CLIP", "clip.modeling_clip"): _clip("CLIP"),
    ("MetaCLIP 2", "metaclip_2.modeling_metaclip_2"): _clip("MetaClip2"),
    ("SigLIP", "siglip.modeling_siglip"): _siglip("Siglip"),
    ("SigLIP 2", "siglip2.modeling_siglip2"): _siglip("Siglip2"),
    ("OWL-ViT", "owlvit.modeling_owlvit"): _owl("OwlViT"),
    ("OWLv2", "owlv2.modeling_owlv2"): _owl("Owlv2"),
}
"""(Family, file of transformers) -> class -> where it has its parts."""
FAMILIES: tuple[Family, ...] = tuple(
    family(name, file, layouts, read, answer) for (name, file), layouts in _FILES.items()
)
