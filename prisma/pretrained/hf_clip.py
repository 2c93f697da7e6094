"""transformers' image-text pairs, their image side: CLIP, MetaCLIP 2, SigLIP, SigLIP 2, OWL-ViT; and `pair`, which adds
what the text side needs.

Sources: as in `hf_text`; Tschannen et al. 2502.14786 (SigLIP 2, and its patches of any grid).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.pretrained import hf_text
from prisma.pretrained.calls import quiet, sentences
from prisma.pretrained.family import Family, full_name
from prisma.pretrained.hf_text import LAYERS, Row, both, layer_fields, within
from prisma.pretrained.parts import activation, n_classes, torn
from prisma.pretrained.rules import Context, Make, Source, UnsupportedModelError, flat, rules


@dataclass(frozen=True)
class Layout:
    """Where a class has its parts."""

    trunk: str = ""  # the attribute that is the image tower, if the module is more than that
    head: str = ""  # the attribute that is a projection or classifier, if there is one
    classifies: bool = False  # the mean of the patches, whatever else the tower has for pooling


def read(layouts: Mapping[str, Layout], module: Any) -> Source:
    """`layouts` by the name of the class. Raises UnsupportedModelError."""
    layout = layouts[type(module).__name__]
    trunk, head = module.get_submodule(layout.trunk), module.get_submodule(layout.head) if layout.head else None
    embeddings, class_token = trunk.embeddings, hasattr(trunk.embeddings, "class_embedding")
    attention = hasattr(trunk, "head") and not layout.classifies
    layers = layer_fields(trunk)
    if attention and not (trunk.use_head and activation(trunk.head.mlp.activation_fn) == layers["activation"]):
        raise UnsupportedModelError("attention pooling that is not used, or of another activation, is not supported")
    config = ViTConfig(
        image_size=image_sides(trunk),
        patch_size=embeddings.patch_size,
        cut_edge=torn(image_sides(trunk), embeddings.patch_size),
        channels=trunk.config.num_channels,
        n_classes=n_classes(head),
        head_bias=n_classes(head) > 0 and head.bias is not None,  # type: ignore[union-attr]
        class_token=class_token,
        norm_embed=class_token,
        norm_final=not (class_token and layout.classifies),
        norm_pooled=class_token and not layout.classifies,
        pool="attention" if attention else "class" if class_token and not layout.classifies else "mean",
        pool_heads=trunk.head.attention.num_heads if attention else None,
        pool_d_mlp=trunk.head.mlp.fc1.out_features if attention else None,
        **layers,
    )
    table = [*within(layout.trunk, _TABLE), *(both("readout.head", layout.head) if layout.head else ())]
    start = f"{layout.trunk}." if layout.trunk else ""
    passed = (f"{start}head..*", f"{start}post_layernorm..*") if layout.classifies else ()
    return Source(config, rules(*table), (*_TEXT_SIDE, *passed), {"positions": positions(trunk)})


def image_sides(trunk: Any) -> tuple[int, int]:
    """(height, width) in pixels of the images that the source is asked for."""
    size = getattr(trunk.config, "image_size", None)
    if size is None:  # patches of any grid: the one of its positions
        return (trunk.embeddings.position_embedding_size * trunk.embeddings.patch_size,) * 2
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@torch.no_grad()
def positions(trunk: Any) -> Tensor:
    """[token, d_model], resampled by the source's own code where the images have another size than its table."""
    embeddings, sides = trunk.embeddings, image_sides(trunk)
    table, (height, width) = embeddings.position_embedding.weight, (side // embeddings.patch_size for side in sides)
    if hasattr(embeddings, "resize_positional_embeddings"):
        if torn(sides, embeddings.patch_size):
            raise UnsupportedModelError(
                f"image_size={sides} is not supported: this source takes whole patches of pixels"
            )
        square = table.unflatten(0, (embeddings.position_embedding_size, -1))
        return embeddings.resize_positional_embeddings(square, torch.tensor([[height, width]]), height * width)[0]
    n_tokens = height * width + int(hasattr(embeddings, "class_embedding"))
    like = torch.empty(1, n_tokens, table.shape[1], device="meta")
    try:
        return embeddings.interpolate_pos_encoding(like, *sides)[0]
    except RuntimeError:
        raise UnsupportedModelError(
            f"image_size={sides} is not supported: the source cannot resample its {len(table)} positions to it"
        ) from None


def _patch(context: Context, weight: Tensor) -> Tensor:
    """A convolution, or a linear map of patches whose channels come last."""
    if weight.ndim == 4:
        return flat(context, weight)
    p, q = context.config.patch_sides
    return rearrange(weight, "m (p q c) -> m (c p q)", p=p, q=q)


def _of_patches(context: Context, _: Tensor) -> Tensor:
    return context.facts["positions"][-context.config.n_patches :]


def _class_token(context: Context, token: Tensor, _: Tensor) -> Tensor:
    """Our prefix tokens carry their own position."""
    return (token + context.facts["positions"][0])[None]


def _no_prefix(_: Context, weight: Tensor) -> Tensor:
    return weight.new_empty(0, weight.shape[0])


def _row(_: Context, probe: Tensor) -> Tensor:
    return probe[0]


def _third(which: int) -> Make:
    """q, k or v of the matrix that holds the three."""
    return lambda _, x: x.chunk(3)[which]


_TABLE: tuple[Row, ...] = (
    ("embed.patch.weight", "embeddings.patch_embedding.weight", _patch),
    ("embed.patch.bias", "embeddings.patch_embedding.bias"),
    ("embed.prefix", "embeddings.class_embedding embeddings.position_embedding.weight", _class_token),
    ("embed.prefix", "embeddings.patch_embedding.weight", _no_prefix),
    ("embed.positions", "embeddings.position_embedding.weight", _of_patches),
    *both("embed.ln_pre", "pre_layrnorm", "pre_layernorm"),  # the former as CLIP spells it
    *LAYERS,
    *both("readout.ln_final", "post_layernorm"),
    ("readout.attention_pool.query", "head.probe", _row),
    *(
        (f"readout.attention_pool.{name}.{part}", f"head.attention.in_proj_{part}", _third(i))
        for i, name in enumerate("qkv")
        for part in ("weight", "bias")
    ),
    *both("readout.attention_pool.out", "head.attention.out_proj"),
    *both("readout.attention_pool.ln", "head.layernorm"),
    *both("readout.attention_pool.mlp.pre", "head.mlp.fc1"),
    *both("readout.attention_pool.mlp.out", "head.mlp.fc2"),
)
_TEXT_SIDE = (r"text_model\..*", r"text_projection\..*", "logit_scale", "logit_bias")


def answer(layouts: Mapping[str, Layout], module: Any, images: Tensor) -> Tensor:
    """Logits of a classifier; else the image embedding before it is made a unit vector; else the mean of the tokens."""
    layout = layouts[type(module).__name__]
    trunk = module.get_submodule(layout.trunk)
    inputs = _inputs(trunk, images)
    if layout.classifies:
        return module(**inputs).logits
    output = trunk(**inputs)
    pooled = output.last_hidden_state.mean(1) if output.pooler_output is None else output.pooler_output
    return module.get_submodule(layout.head)(pooled) if layout.head else pooled


def _inputs(trunk: Any, images: Tensor) -> dict[str, Any]:
    """What the source is given for images [batch, channel, height, width]."""
    p = trunk.embeddings.patch_size
    height, width = (side // p for side in images.shape[-2:])
    if not hasattr(trunk.embeddings, "resize_positional_embeddings"):
        return {"pixel_values": images, "interpolate_pos_encoding": True}
    return {
        "pixel_values": rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p),
        "pixel_attention_mask": images.new_ones(len(images), height * width, dtype=torch.int32),
        "spatial_shapes": torch.tensor([[height, width]] * len(images)),
    }


def _blocks(layouts: Mapping[str, Layout], module: nn.Module) -> Sequence[nn.Module]:
    trunk: Any = module.get_submodule(layouts[type(module).__name__].trunk)
    return list(trunk.encoder.layers)


def _family(name: str, file: str, layouts: Mapping[str, Layout]) -> Family:
    return Family(
        name=name,
        library="transformers",
        classes=tuple(f"transformers.models.{file}.{kind}" for kind in layouts),
        read=partial(read, layouts),
        answer=partial(answer, layouts),
        blocks=partial(_blocks, layouts),
    )


def _projected(name: str) -> dict[str, Layout]:
    """The classes of CLIP and of its likes."""
    pair = Layout("vision_model", "visual_projection")
    return {
        f"{name}VisionModel": Layout(),
        f"{name}VisionModelWithProjection": pair,
        f"{name}Model": pair,
        f"{name}ForImageClassification": Layout("vision_model", "classifier", classifies=True),
    }


def _sigmoid(name: str) -> dict[str, Layout]:
    """The classes of SigLIP, whose image side has no projection."""
    return {
        f"{name}VisionModel": Layout(),
        f"{name}Model": Layout("vision_model"),
        f"{name}ForImageClassification": Layout("vision_model", "classifier", classifies=True),
    }


_OWL = {"VisionModel": Layout("vision_model"), "Model": Layout("vision_model", "visual_projection")}
FAMILIES: tuple[Family, ...] = (
    _family("CLIP", "clip.modeling_clip", _projected("CLIP")),
    _family("MetaCLIP 2", "metaclip_2.modeling_metaclip_2", _projected("MetaClip2")),
    _family("SigLIP", "siglip.modeling_siglip", _sigmoid("Siglip")),
    _family("SigLIP 2", "siglip2.modeling_siglip2", _sigmoid("Siglip2")),
    _family("OWL-ViT", "owlvit.modeling_owlvit", {f"OwlViT{kind}": layout for kind, layout in _OWL.items()}),
    _family("OWLv2", "owlv2.modeling_owlv2", {f"Owlv2{kind}": layout for kind, layout in _OWL.items()}),
)
PAIRS = frozenset(kind for x in FAMILIES for kind in x.classes) & {k for x in hf_text.TEXT_FAMILIES for k in x.classes}
"""Classes that have both sides."""


def pair(module: nn.Module, tokenizer: str | Path | None, **options: Any) -> tuple[nn.Module | None, dict[str, Any]]:
    """The module that has the text tower (None: there is no text side), and the rest of what `opened.Text` takes.

    Args:
        tokenizer: the folder or id it is loaded from when a prompt comes first; None: there is none.
        options: of AutoTokenizer.from_pretrained, such as revision.
    """
    if full_name(module) not in PAIRS:
        return None, {}
    source: Any = module
    context = source.text_model.embeddings.position_embedding.num_embeddings
    return module, {
        "tokenize": _Tokenize(tokenizer, options, context),
        "logit_scale": source.logit_scale.detach().double().exp().item(),
        "logit_bias": source.logit_bias.item() if hasattr(source, "logit_bias") else 0.0,
    }


@dataclass
class _Tokenize:
    """Prompts -> ids [prompt, context], padded to the full context: what follows a causal tower's end token changes
    nothing, and SigLIP's towers were trained to see the padding.
    """

    source: str | Path | None
    options: Mapping[str, Any]
    context: int
    tokenizer: Callable[..., Any] | None = None

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Raises PrismaError: a prompt has more tokens than the tower takes, or there is no tokenizer."""
        self.tokenizer = self.tokenizer or self._load()
        padded = {"padding": "max_length", "max_length": self.context, "truncation": False}
        with quiet():  # that a prompt is too long is said below
            rows = self.tokenizer(list(prompts), **padded)["input_ids"] if prompts else []
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) > self.context:
                raise PrismaError(
                    f"expected a prompt of at most {self.context} tokens, found {len(row)} in {prompt[:60]!r}"
                )
        return torch.tensor(rows, dtype=torch.long).view(len(rows), self.context)

    def _load(self) -> Callable[..., Any]:
        if self.source is None:
            raise PrismaError("expected a tokenizer for the text tower, found a module that came without one")
        from transformers import AutoTokenizer

        with sentences(f"the tokenizer of {self.source}"):
            found = AutoTokenizer.from_pretrained(self.source, **self.options)
        if found.padding_side != "right":
            raise PrismaError(
                f"expected a tokenizer that pads on the right, found one that pads on the {found.padding_side}"
            )
        return found
