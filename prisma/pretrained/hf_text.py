"""transformers' text towers of image-text pairs, alone and inside a pair; and the layers that both sides share.

Sources: Radford et al. 2103.00020 (CLIP); Zhai et al. 2303.15343 (SigLIP); Minderer et al. 2205.06230 (OWL-ViT).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from prisma.config import TextConfig
from prisma.pretrained.family import Family
from prisma.pretrained.parts import activation, norm
from prisma.pretrained.rules import Make, Source, UnsupportedModelError, joined, rules

Row = tuple[str, str] | tuple[str, str, Make]


def both(ours: str, *theirs: str) -> list[tuple[str, str]]:
    """A weight and a bias, of whichever of their names is there."""
    return [(f"{ours}.{part}", f"{name}.{part}") for name in theirs for part in ("weight", "bias")]


def _qkv(part: str) -> tuple[str, str, Make]:
    theirs = (f"encoder.layers.{{l}}.self_attn.{name}_proj.{part}" for name in "qkv")
    return f"blocks.{{l}}.attn.qkv.{part}", " ".join(theirs), joined


LAYERS: tuple[Row, ...] = (
    *both("blocks.{l}.ln1", "encoder.layers.{l}.layer_norm1"),
    _qkv("weight"),
    _qkv("bias"),
    *both("blocks.{l}.attn.out", "encoder.layers.{l}.self_attn.out_proj"),
    *both("blocks.{l}.ln2", "encoder.layers.{l}.layer_norm2"),
    *both("blocks.{l}.mlp.pre", "encoder.layers.{l}.mlp.fc1"),
    *both("blocks.{l}.mlp.out", "encoder.layers.{l}.mlp.fc2"),
)
_TOKENS: tuple[Row, ...] = (
    ("embed.tokens.weight", "embeddings.token_embedding.weight"),
    ("embed.positions", "embeddings.position_embedding.weight"),
    *both("readout.ln_final", "final_layer_norm"),
)


def within(trunk: str, rows: Iterable[Row]) -> list[Any]:
    """The rows of a table, of a module that is the attribute `trunk` of another ("": the module itself)."""
    start = f"{trunk}." if trunk else ""
    return [(ours, " ".join(start + name for name in theirs.split()), *make) for ours, theirs, *make in rows]


def layer_fields(trunk: Any) -> dict[str, Any]:
    """Fields of a config that the layers of a tower tell."""
    layers = trunk.encoder.layers
    if not len(layers):
        raise UnsupportedModelError("num_hidden_layers=0 is not supported: there would be nothing to look into")
    kind, eps = norm(part for part in trunk.modules() if "Norm" in type(part).__name__)
    first = layers[0]
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
    """The first end-of-text token speaks for a prompt."""
    if type(trunk.eos_token_id) is not int:
        raise UnsupportedModelError(
            f"eos_token_id={trunk.eos_token_id!r} is not supported: pooling needs the id of one token"
        )
    return trunk.eos_token_id


def _end_or_largest(trunk: Any) -> int | None:
    """CLIP's configurations of before 2023 say 2, whatever the tokenizer; the source then takes the largest id."""
    end = _end(trunk)
    return None if end == 2 else end


def _largest(_: Any) -> None:
    return None


@dataclass(frozen=True)
class Layout:
    """Where a class has its parts, and which token speaks for a prompt."""

    trunk: str = ""  # the attribute that is the tower, if the module is more than that
    head: str = ""  # the attribute that is the projection, if there is one
    end: Callable[[Any], int | None] | None = (
        None  # id of the token to pool at; None: the last token, of a tower that is not causal
    )


UNUSED = (r"vision_model\..*", r"visual_projection\..*", "logit_scale", "logit_bias")
"""The other side of a pair."""


def read(layouts: Mapping[str, Layout], module: Any) -> Source:
    """`layouts` by the name of the class. Raises UnsupportedModelError."""
    layout = layouts[type(module).__name__]
    trunk = module.get_submodule(layout.trunk)
    head = module.get_submodule(layout.head) if layout.head else None
    config = TextConfig(
        vocabulary=trunk.embeddings.token_embedding.num_embeddings,
        context=trunk.embeddings.position_embedding.num_embeddings,
        n_classes=0 if head is None else head.out_features,
        head_bias=head is not None and head.bias is not None,
        causal=layout.end is not None,
        pool="last" if layout.end is None else "end",
        end=None if layout.end is None else layout.end(trunk),
        **layer_fields(trunk),
    )
    table = [*within(layout.trunk, (*LAYERS, *_TOKENS)), *(both("readout.head", layout.head) if layout.head else ())]
    return Source(config, rules(*table), UNUSED)


def _read_aimv2(_: nn.Module) -> Source:
    raise UnsupportedModelError(
        "a mask that depends on the other prompts of a batch is not supported: "
        "this text tower is causal only where one of them is padded"
    )


def answer(layouts: Mapping[str, Layout], module: Any, ids: Tensor) -> Tensor:
    """The embedding before it is made a unit vector [batch, class]."""
    layout = layouts[type(module).__name__]
    pooled = module.get_submodule(layout.trunk)(input_ids=ids).pooler_output
    outside = layout.head and not layout.head.startswith(layout.trunk or layout.head)
    return module.get_submodule(layout.head)(pooled) if outside else pooled


def _blocks(layouts: Mapping[str, Layout], module: nn.Module) -> Sequence[nn.Module]:
    trunk: Any = module.get_submodule(layouts[type(module).__name__].trunk)
    return list(trunk.encoder.layers)


def _family(name: str, file: str, layouts: Mapping[str, Layout]) -> Family:
    return Family(
        name=f"{name}, text",
        library="transformers",
        classes=tuple(f"transformers.models.{file}.{kind}" for kind in layouts),
        read=partial(read, layouts),
        answer=partial(answer, layouts),
        blocks=partial(_blocks, layouts),
    )


def _projected(name: str, end: Callable[[Any], int | None]) -> dict[str, Layout]:
    """The classes of CLIP and of its likes."""
    pair = Layout("text_model", "text_projection", end)
    return {f"{name}TextModel": Layout("", "", end), f"{name}TextModelWithProjection": pair, f"{name}Model": pair}


def _sigmoid(name: str) -> dict[str, Layout]:
    """The classes of SigLIP, whose projection is a part of the tower."""
    return {f"{name}TextModel": Layout("", "head"), f"{name}Model": Layout("text_model", "text_model.head")}


_OWL = {"TextModel": Layout("text_model", "", _largest), "Model": Layout("text_model", "text_projection", _largest)}
_AIMV2 = Family(
    name="AIMv2, text",
    library="transformers",
    classes=("transformers.models.aimv2.modeling_aimv2.Aimv2TextModel",),
    read=_read_aimv2,
    answer=lambda module, ids: module(ids).pooler_output,
    blocks=lambda module: list(module.encoder.layers),  # type: ignore[union-attr, arg-type]
)
TEXT_FAMILIES: tuple[Family, ...] = (
    _family("CLIP", "clip.modeling_clip", _projected("CLIP", _end_or_largest)),
    _family("MetaCLIP 2", "metaclip_2.modeling_metaclip_2", _projected("MetaClip2", _end)),
    _family("SigLIP", "siglip.modeling_siglip", _sigmoid("Siglip")),
    _family("SigLIP 2", "siglip2.modeling_siglip2", _sigmoid("Siglip2")),
    _family("OWL-ViT", "owlvit.modeling_owlvit", {f"OwlViT{kind}": layout for kind, layout in _OWL.items()}),
    _family("OWLv2", "owlv2.modeling_owlv2", {f"Owlv2{kind}": layout for kind, layout in _OWL.items()}),
    _AIMV2,
)
"""Images are prompts [batch, context] of token ids here."""
