"""open_clip: its own vision transformer, timm trunks in its adapter, whole pairs, and their text towers.

Sources: Radford et al. 2103.00020 (CLIP); Zhai et al. 2303.15343 (SigLIP); Li et al. 2305.07017 (CLIPA); Shleifer et
al. 2110.09456 (the norms and scales of the custom blocks).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.pretrained import timm_eva, timm_vit
from prisma.pretrained.family import Family, full_name
from prisma.pretrained.parts import activation, norm, there, torn
from prisma.pretrained.rules import Context, Rule, Source, UnsupportedModelError, flat, rules
from prisma.pretrained.unread import properties

_HOME = "open_clip.transformer"
_POOLS = {"tok": "class", "avg": "mean"}
_TEXT_POOLS = {"argmax": "end", "eos": "end", "first": "first", "last": "last"}
_CLASSES = (f"{_HOME}.ResidualAttentionBlock", f"{_HOME}.CustomResidualAttentionBlock")


def _transposed(_: Context, matrix: Tensor) -> Tensor:
    """A matrix that multiplies from the right."""
    return matrix.T.contiguous()


def _class_token(_: Context, token: Tensor, positions: Tensor) -> Tensor:
    """Our prefix tokens carry their own position."""
    return (token + positions[0])[None]


def _of_patches(_: Context, positions: Tensor) -> Tensor:
    return positions[1:]


def _scaled_values(_: Context, qkv: Tensor, scale: Tensor) -> Tensor:
    """A scale of each head's output, in the rows of v: attention is linear in v."""
    q, k, v = qkv.chunk(3)
    return torch.cat([q, k, (v.unflatten(0, (len(scale), -1)).flatten(1) * scale[:, 0]).view_as(v)])


_BLOCK = "transformer.resblocks.{l}."
_BLOCKS = rules(
    *(
        row
        for part in ("weight", "bias")
        for row in (
            (f"blocks.{{l}}.ln1.{part}", f"{_BLOCK}ln_1.{part}"),
            (f"blocks.{{l}}.attn.qkv.{part}", f"{_BLOCK}attn.in_proj_{part} {_BLOCK}attn.head_scale", _scaled_values),
            (f"blocks.{{l}}.attn.qkv.{part}", f"{_BLOCK}attn.in_proj_{part}"),
            (f"blocks.{{l}}.attn.q_norm.{part}", f"{_BLOCK}attn.ln_q.{part}"),
            (f"blocks.{{l}}.attn.k_norm.{part}", f"{_BLOCK}attn.ln_k.{part}"),
            (f"blocks.{{l}}.attn.ln.{part}", f"{_BLOCK}attn.ln_inner.{part}"),
            (f"blocks.{{l}}.attn.out.{part}", f"{_BLOCK}attn.out_proj.{part}"),
            (f"blocks.{{l}}.ln2.{part}", f"{_BLOCK}ln_2.{part}"),
            (f"blocks.{{l}}.mlp.pre.{part}", f"{_BLOCK}mlp.c_fc.{part}"),
            (f"blocks.{{l}}.mlp.ln.{part}", f"{_BLOCK}mlp.ln.{part}"),
            (f"blocks.{{l}}.mlp.out.{part}", f"{_BLOCK}mlp.c_proj.{part}"),
        )
    ),
    ("blocks.{l}.scale1.weight", f"{_BLOCK}ls_1.gamma"),
    ("blocks.{l}.scale2.weight", f"{_BLOCK}ls_2.gamma"),
)
_VISION = _BLOCKS + rules(
    ("embed.patch.weight", "conv1.weight", flat),
    ("embed.prefix", "class_embedding positional_embedding", _class_token),
    ("embed.positions", "positional_embedding", _of_patches),
    ("embed.ln_pre.weight", "ln_pre.weight"),
    ("embed.ln_pre.bias", "ln_pre.bias"),
    ("readout.ln_final.weight", "ln_post.weight"),
    ("readout.ln_final.bias", "ln_post.bias"),
    ("readout.head.weight", "proj", _transposed),
)
_TEXT = _BLOCKS + rules(
    ("embed.tokens.weight", "token_embedding.weight"),
    ("embed.positions", "positional_embedding"),
    ("readout.ln_final.weight", "ln_final.weight"),
    ("readout.ln_final.bias", "ln_final.bias"),
    ("readout.head.weight", "text_projection", _transposed),
    ("readout.head.weight", "text_projection.weight"),
    ("readout.head.bias", "text_projection.bias"),
)
_PROJECTION = rules(("readout.head.weight", "head.proj.weight"), ("readout.head.bias", "head.proj.bias"))


def _refuse(*properties: tuple[bool, str]) -> None:
    for found, why in properties:
        if found:
            raise UnsupportedModelError(f"not supported in an open_clip tower: {why}")


def _within_names(sequence: nn.Module, *names: str) -> bool:
    """Whether a sequence has no other parts, and those in this order."""
    found = list(dict(sequence.named_children()))
    return found == [name for name in names if name in found]


def _of_block(block: Any) -> dict[str, Any]:
    """The fields of a config that one block decides."""
    kind, attn = full_name(block), block.attn
    _refuse(
        (kind not in _CLASSES, f"blocks of the class {kind}"),
        (not _within_names(block.mlp, "c_fc", "gelu", "ln", "c_proj"), "an MLP with parts of its own"),
        (hasattr(block, "ln_1_kv"), "blocks that attend to another sequence (is_cross_attention)"),
        (getattr(attn, "logit_scale", None) is not None, "attention by scaled cosines (scaled_cosine_attn)"),
        (there(getattr(block, "ln_attn", None)), "a norm of what attention adds as well as of its input (scale_attn)"),
    )
    return {
        "d_model": block.mlp.c_fc.in_features,
        "d_mlp": block.mlp.c_fc.out_features,
        "n_heads": attn.num_heads,
        "activation": activation(block.mlp.gelu),
        "qkv_bias": attn.in_proj_bias is not None,
        "qk_norm": there(getattr(attn, "ln_q", None)),
        "norm_z": there(getattr(attn, "ln_inner", None)),
        "norm_post": there(getattr(block.mlp, "ln", None)),
        "layer_scale": there(block.ls_1),
    }


def _shared(module: Any) -> dict[str, Any]:
    """The fields of a config that towers of images and of text share."""
    blocks = module.transformer.resblocks
    fields = [_of_block(block) for block in blocks]
    _refuse(
        (not fields, "no blocks"),
        (any(field != fields[0] for field in fields), "blocks that differ from one another"),
    )
    outside = (getattr(module, name, nn.Identity()) for name in ("ln_pre", "ln_post", "ln_final"))
    inside = (part for name, part in blocks.named_modules() if name.rpartition(".")[2].startswith("ln"))
    norm_kind, norm_eps = norm((*outside, *inside))
    return {"n_layers": len(fields), "norm_kind": norm_kind, "norm_eps": norm_eps, **fields[0]}


def _read_vision(module: Any) -> Source:
    sides, patches = module.image_size, module.patch_size
    _refuse(
        (module.attn_pool is not None, "attentional pooling between two norms, in a width of its own (CoCa)"),
        (module.pool_type not in _POOLS, f"an output for every token (pool_type={module.pool_type!r})"),
    )
    config = ViTConfig(
        image_size=sides,
        patch_size=patches,
        cut_edge=torn(sides, patches),
        channels=module.conv1.in_channels,
        n_classes=0 if module.proj is None else module.proj.shape[1],
        head_bias=False,
        norm_embed=there(module.ln_pre),
        norm_final=there(module.ln_post),
        norm_pooled=there(module.ln_post) and module.final_ln_after_pool,
        pool=_POOLS[module.pool_type],
        **_shared(module),
    )
    return Source(config, _VISION)


def _read_text(module: Any) -> Source:
    """A text transformer, or a CLIP that holds the parts of one as its own."""
    inside = hasattr(module, "text_pool_type")
    pool, end = (module.text_pool_type, module.text_eos_id) if inside else (module.pool_type, module.eos_id)
    context, projection, mask = module.context_length, module.text_projection, module.attn_mask
    _refuse(
        (getattr(module, "cls_emb", None) is not None, "a class token whose mask depends on the prompt (embed_cls)"),
        (getattr(module, "use_pad_mask", False), "a mask that depends on the prompt (use_pad_mask)"),
        (pool not in _TEXT_POOLS, f"an output for every token (pool_type={pool!r})"),
        (mask is not None and not _is_causal(mask, context), "a mask of tokens that is not the causal one"),
        (not there(module.ln_final), "no final norm in the text tower"),
    )
    linear = isinstance(projection, nn.Linear)
    config = TextConfig(
        vocabulary=module.token_embedding.num_embeddings,
        context=context,
        n_classes=0 if projection is None else projection.out_features if linear else projection.shape[1],
        head_bias=linear and projection.bias is not None,
        causal=mask is not None,
        pool=_TEXT_POOLS[pool],
        end=end if pool == "eos" else None,
        **_shared(module),
    )
    return Source(config, _TEXT, unused=(r"visual\..*", "logit_scale", "logit_bias") if inside else ())


def _is_causal(mask: Tensor, context: int) -> bool:
    wanted = torch.full((context, context), -torch.inf).triu(1)
    return mask.shape == wanted.shape and torch.equal(mask.float().cpu(), wanted)


def _read_adapter(module: Any) -> Source:
    """A timm trunk and, if there is one, the linear projection after it."""
    try:
        trunk = _within(_TRUNKS, module.trunk).read(module.trunk)
    except PrismaError as error:  # of sizes that do not fit each other
        raise UnsupportedModelError(str(error)) from None
    head, config = dict(module.head.named_children()), trunk.config
    _refuse(
        ("mlp" in head, "a projection with a hidden layer (timm_proj='mlp')"),
        ("pool" in head, "attention pooling with positions of its own (timm_pool)"),
        (not _within_names(module.head, "drop", "proj"), "a projection with parts of its own"),
        ("proj" in head and bool(config.n_classes), "two projections, the trunk's and the adapter's"),
    )
    source = prefixed(trunk, "trunk.")
    if "proj" not in head:
        return source
    config = replace(config, n_classes=head["proj"].out_features, head_bias=head["proj"].bias is not None)
    return replace(source, config=config, rules=_PROJECTION + source.rules)


def _read_pair(module: Any) -> Source:
    """The vision side."""
    source = prefixed(_within(_TOWERS, module.visual).read(module.visual), "visual.")
    return replace(source, unused=(*source.unused, r"(?!visual\.).*"))


def prefixed(source: Source, prefix: str) -> Source:
    """The same source, inside a module where its tensors' names begin with `prefix`."""
    moved = tuple(Rule(rule.ours, tuple(prefix + name for name in rule.theirs), rule.make) for rule in source.rules)
    start = prefix.replace(".", r"\.")
    return replace(source, rules=moved, unused=tuple(f"{start}(?:{pattern})" for pattern in source.unused))


def _first(output: Any) -> Tensor:
    """The pooled features, if the tokens come with them (output_tokens)."""
    return output[0] if isinstance(output, tuple) else output


def _resblocks(module: Any) -> Sequence[nn.Module]:
    return module.transformer.resblocks


def _within(families: Iterable[Family], module: nn.Module) -> Family:
    """The family of a part."""
    for family in families:
        if full_name(module) in family.classes:
            return family
    has = " and ".join(properties(module)) or "no reader"
    raise UnsupportedModelError(f"not supported as an open_clip tower: {full_name(module)}, which has {has}")


_TRUNKS = (*timm_vit.FAMILIES, *timm_eva.FAMILIES)
_TOWERS = (
    Family(
        name="open_clip VisionTransformer",
        library="open_clip",
        classes=(f"{_HOME}.VisionTransformer",),
        read=_read_vision,
        answer=lambda module, images: _first(module(images)),
        blocks=_resblocks,
    ),
    Family(
        name="open_clip TimmModel",
        library="open_clip",
        classes=("open_clip.timm_model.TimmModel",),
        read=_read_adapter,
        answer=lambda module, images: module(images),
        blocks=lambda module: _within(_TRUNKS, module.trunk).blocks(module.trunk),  # type: ignore[arg-type]
    ),
)
FAMILIES: tuple[Family, ...] = (
    *_TOWERS,
    Family(
        name="open_clip CLIP",
        library="open_clip",
        classes=("open_clip.model.CLIP", "open_clip.model.CustomTextCLIP", "open_clip.coca_model.CoCa"),
        read=_read_pair,
        answer=lambda module, images: _first(module.visual(images)),  # type: ignore[operator]
        blocks=lambda module: _within(_TOWERS, module.visual).blocks(module.visual),  # type: ignore[arg-type]
    ),
)

TEXT_FAMILIES: tuple[Family, ...] = (
    Family(
        name="open_clip TextTransformer",
        library="open_clip",
        classes=(f"{_HOME}.TextTransformer",),
        read=_read_text,
        answer=lambda module, ids: _first(module(ids)),
        blocks=_resblocks,
    ),
    Family(
        name="open_clip CLIP, text",
        library="open_clip",
        classes=("open_clip.model.CLIP",),
        read=_read_text,
        answer=lambda module, ids: module.encode_text(ids),  # type: ignore[operator]
        blocks=_resblocks,
    ),
)
"""Text towers: images are prompts [batch, context] of token ids here."""
