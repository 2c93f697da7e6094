"""transformers' text towers of image-text pairs, alone and inside a pair; and the layers that both sides share.

Sources: Radford et al. 2103.00020 (CLIP); Zhai et al. 2303.15343 (SigLIP); Minderer et al. 2205.06230 (OWL-ViT).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prisma.config import TextConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.family import Family
from prisma.pretrained.parts import activation, norm
from prisma.pretrained.rules import Conversion, Row, both, inside, rules
from prisma.pretrained.tensors import joined
from prisma.pretrained.transformers.layout import Layout, family

ENCODER_LAYERS = "encoder.layers"

LAYERS: tuple[Row, ...] = tuple(
    inside(
        f"{ENCODER_LAYERS}.{{l}}",
        (
            *both("blocks.{l}.ln1", "layer_norm1"),
            *both("blocks.{l}.attn.qkv", "self_attn.q_proj self_attn.k_proj self_attn.v_proj", make=joined),
            *both("blocks.{l}.attn.out", "self_attn.out_proj"),
            *both("blocks.{l}.ln2", "layer_norm2"),
            *both("blocks.{l}.mlp.pre", "mlp.fc1"),
            *both("blocks.{l}.mlp.out", "mlp.fc2"),
        ),
    )
)
"""Rows for the layers of a tower of images or of text."""
_TOKENS: tuple[Row, ...] = (
    ("embed.tokens.weight", "embeddings.token_embedding.weight"),
    ("embed.positions", "embeddings.position_embedding.weight"),
    *both("readout.ln_final", "final_layer_norm"),
)
UNUSED = (r"vision_model\..*", r"visual_projection\..*", "logit_scale", "logit_bias")
"""The other side of a pair."""


@dataclass(frozen=True)
class TextLayout(Layout):
    """Where a class has its parts, and at which token it pools a prompt."""

    layers: str = ENCODER_LAYERS
    end: Callable[[Any], int | None] | None = None
    """Tower -> id of its end token, or None for the largest id in the prompt. No function: it pools the last token, and
    is not causal."""


def layer_fields(layout: Layout, module: nn.Module) -> dict[str, Any]:
    """Fields of a config that the layers of a tower determine."""
    layers = layout.layers_of(module)
    kind, eps = norm(part for part in layout.trunk_of(module).modules() if "Norm" in type(part).__name__)
    first: Any = layers[0]
    return {
        "n_layers": len(layers),
        "d_model": first.self_attn.embed_dim,
        "n_heads": first.self_attn.num_heads,
        "d_mlp": first.mlp.fc1.out_features,
        "activation": activation(first.mlp.activation_fn),
        "norm_kind": kind,
        "norm_eps": eps,
    }


def _end(trunk: Any) -> int:
    """The id of the end token."""
    if type(trunk.eos_token_id) is not int:
        raise UnsupportedModelError(f"expected eos_token_id as the id of one token; found {trunk.eos_token_id!r}")
    return trunk.eos_token_id


def _end_or_largest(trunk: Any) -> int | None:
    """CLIP's configurations from before 2023 say 2 for any tokenizer; with 2, the source pools at the largest id."""
    end = _end(trunk)
    return None if end == 2 else end


def _largest(_: Any) -> None:
    return None


def read(layout: TextLayout, module: Any) -> Conversion:
    """The conversion of a text tower, or of the text side of a pair. Raises UnsupportedModelError."""
    trunk, head = layout.trunk_of(module), layout.head_of(module)
    config = TextConfig(
        vocabulary=trunk.embeddings.token_embedding.num_embeddings,
        context=trunk.embeddings.position_embedding.num_embeddings,
        n_classes=0 if head is None else head.out_features,
        head_bias=head is not None and head.bias is not None,
        causal=layout.end is not None,
        pool="last" if layout.end is None else "end",
        end=None if layout.end is None else layout.end(trunk),
        **layer_fields(layout, module),
    )
    head_rows = both("readout.head", layout.head) if layout.head else ()
    return Conversion(config, rules(*inside(layout.trunk, (*LAYERS, *_TOKENS)), *head_rows), UNUSED)


def _read_aimv2(_: nn.Module) -> Conversion:
    raise UnsupportedModelError(
        "a text tower whose attention mask depends on the other prompts of a batch is not supported: "
        "this one is causal only if a prompt of the batch is padded"
    )


def answer(layout: TextLayout, module: Any, ids: Tensor) -> Tensor:
    """The embedding [batch, class], before it is normalised to unit length."""
    pooled = layout.trunk_of(module)(input_ids=ids).pooler_output
    head_is_in_trunk = not layout.trunk or layout.head.startswith(layout.trunk)
    return pooled if head_is_in_trunk or not layout.head else layout.head_of(module)(pooled)


def _clip(name: str, end: Callable[[Any], int | None]) -> dict[str, TextLayout]:
    """The classes of CLIP and of models built like it."""
    pair = TextLayout("text_model", head="text_projection", end=end)
    return {
        f"{name}TextModel": TextLayout(end=end), f"{name}TextModelWithProjection": pair, f"{name}Model": pair,
    }  # fmt: skip


def _siglip(name: str) -> dict[str, TextLayout]:
    """The classes of SigLIP, whose projection is part of the tower."""
    pair = TextLayout("text_model", head="text_model.head")
    return {f"{name}TextModel": TextLayout(head="head"), f"{name}Model": pair}


def _owl(name: str) -> dict[str, TextLayout]:
    """The classes of OWL-ViT."""
    pair = TextLayout("text_model", head="text_projection", end=_largest)
    return {f"{name}TextModel": TextLayout("text_model", end=_largest), f"{name}Model": pair}


def _text_family(name: str, file: str, layouts: Mapping[str, TextLayout]) -> Family:
    return family(f"{name}, text", file, layouts, read, answer)


TEXT_FAMILIES: tuple[Family, ...] = (
    _text_family("CLIP", "clip.modeling_clip", _clip("CLIP", _end_or_largest)),
    _text_family("MetaCLIP 2", "metaclip_2.modeling_metaclip_2", _clip("MetaClip2", _end)),
    _text_family("SigLIP", "siglip.modeling_siglip", _siglip("Siglip")),
    _text_family("SigLIP 2", "siglip2.modeling_siglip2", _siglip("Siglip2")),
    _text_family("OWL-ViT", "owlvit.modeling_owlvit", _owl("OwlViT")),
    _text_family("OWLv2", "owlv2.modeling_owlv2", _owl("Owlv2")),
    Family(
        name="AIMv2, text",
        library="transformers",
        classes=("transformers.models.aimv2.modeling_aimv2.Aimv2TextModel",),
        read=_read_aimv2,
        answer=lambda module, ids: module(ids).pooler_output,
        blocks=TextLayout().layers_of,
    ),
)
"""Their inputs are token ids [batch, context]."""
