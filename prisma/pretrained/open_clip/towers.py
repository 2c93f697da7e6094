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
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.pretrained.checks import unsupported_properties
from prisma.pretrained.family import Family, full_name
from prisma.pretrained.parts import activation, has_cut_edge, is_present, norm
from prisma.pretrained.rules import Context, Conversion, Row, both, inside, rules
from prisma.pretrained.tensors import class_token_with_position, flat, patch_positions, transposed
from prisma.pretrained.timm import eva, vit

_HOME = "open_clip.transformer"
_POOLS = {"tok": "class", "avg": "mean"}
_TEXT_POOLS = {"argmax": "end", "eos": "end", "first": "first", "last": "last"}
_PARTS = ("weight", "bias")
_BLOCK_CLASSES = (f"{_HOME}.ResidualAttentionBlock", f"{_HOME}.CustomResidualAttentionBlock")


def _scaled_values(_: Context, qkv: Tensor, scale: Tensor) -> Tensor:
    """Multiply the rows of v by the scale of each head's output: attention is linear in v."""
    q, k, v = qkv.chunk(3)
    return torch.cat([q, k, (v.unflatten(0, (len(scale), -1)).flatten(1) * scale[:, 0]).view_as(v)])


_BLOCK: tuple[Row, ...] = (
    *both("blocks.{l}.ln1", "ln_1"),
    *((f"blocks.{{l}}.attn.qkv.{part}", f"attn.in_proj_{part} attn.head_scale", _scaled_values) for part in _PARTS),
    *((f"blocks.{{l}}.attn.qkv.{part}", f"attn.in_proj_{part}") for part in _PARTS),
    *both("blocks.{l}.attn.q_norm", "attn.ln_q"),
    *both("blocks.{l}.attn.k_norm", "attn.ln_k"),
    *both("blocks.{l}.attn.ln", "attn.ln_inner"),
    *both("blocks.{l}.attn.out", "attn.out_proj"),
    *both("blocks.{l}.ln2", "ln_2"),
    *both("blocks.{l}.mlp.pre", "mlp.c_fc"),
    *both("blocks.{l}.mlp.ln", "mlp.ln"),
    *both("blocks.{l}.mlp.out", "mlp.c_proj"),
    ("blocks.{l}.scale1.weight", "ls_1.gamma"),
    ("blocks.{l}.scale2.weight", "ls_2.gamma"),
)
_BLOCKS = inside("transformer.resblocks.{l}", _BLOCK)
_VISION = rules(
    *_BLOCKS,
    ("embed.patch.weight", "conv1.weight", flat),
    ("embed.prefix", "class_embedding positional_embedding", class_token_with_position),
    ("embed.positions", "positional_embedding", patch_positions),
    *both("embed.ln_pre", "ln_pre"),
    *both("readout.ln_final", "ln_post"),
    ("readout.head.weight", "proj", transposed),
)
_TEXT = rules(
    *_BLOCKS,
    ("embed.tokens.weight", "token_embedding.weight"),
    ("embed.positions", "positional_embedding"),
    *both("readout.ln_final", "ln_final"),
    ("readout.head.weight", "text_projection", transposed),
    *both("readout.head", "text_projection"),
)
_PROJECTION = rules(*both("readout.head", "head.proj"))


def _refuse(*properties: tuple[bool, str]) -> None:
    """Raise UnsupportedModelError for the first property that the tower has."""
    for found, what in properties:
        if found:
            raise UnsupportedModelError(f"not supported in an open_clip tower: {what}")


def _has_only(sequence: nn.Module, *names: str) -> bool:
    """Whether a sequence has no parts with other names, and these in this order."""
    found = list(dict(sequence.named_children()))
    return found == [name for name in names if name in found]


def _block_fields(block: Any) -> dict[str, Any]:
    """The fields of a config that one block determines."""
    kind, attn = full_name(block), block.attn
    _refuse(
        (kind not in _BLOCK_CLASSES, f"blocks of the class {kind}"),
        (not _has_only(block.mlp, "c_fc", "gelu", "ln", "c_proj"), "an MLP with additional parts"),
        (hasattr(block, "ln_1_kv"), "blocks that attend to another sequence (is_cross_attention)"),
        (getattr(attn, "logit_scale", None) is not None, "attention by scaled cosines (scaled_cosine_attn)"),
        (is_present(getattr(block, "ln_attn", None)), "a norm after attention as well as before it (scale_attn)"),
    )
    return {
        "d_model": block.mlp.c_fc.in_features,
        "d_mlp": block.mlp.c_fc.out_features,
        "n_heads": attn.num_heads,
        "activation": activation(block.mlp.gelu),
        "qkv_bias": attn.in_proj_bias is not None,
        "qk_norm": is_present(getattr(attn, "ln_q", None)),
        "norm_z": is_present(getattr(attn, "ln_inner", None)),
        "norm_post": is_present(getattr(block.mlp, "ln", None)),
        "layer_scale": is_present(block.ls_1),
    }


def _tower_fields(module: Any) -> dict[str, Any]:
    """The fields of a config that towers of images and of text share."""
    blocks = module.transformer.resblocks
    fields = [_block_fields(block) for block in blocks]
    _refuse(
        (not fields, "no blocks"),
        (any(field != fields[0] for field in fields), "blocks that differ from one another"),
    )
    outside = (getattr(module, name, nn.Identity()) for name in ("ln_pre", "ln_post", "ln_final"))
    inside = (part for name, part in blocks.named_modules() if name.rpartition(".")[2].startswith("ln"))
    norm_kind, norm_eps = norm((*outside, *inside))
    return {"n_layers": len(fields), "norm_kind": norm_kind, "norm_eps": norm_eps, **fields[0]}


def _read_vision(module: Any) -> Conversion:
    sides, patches = module.image_size, module.patch_size
    _refuse(
        (
            module.attn_pool is not None,
            "attentional pooling between two norms, with another width than the blocks (CoCa)",
        ),
        (module.pool_type not in _POOLS, f"an output for every token (pool_type={module.pool_type!r})"),
    )
    config = ViTConfig(
        image_size=sides,
        patch_size=patches,
        cut_edge=has_cut_edge(sides, patches),
        channels=module.conv1.in_channels,
        n_classes=0 if module.proj is None else module.proj.shape[1],
        head_bias=False,
        norm_embed=is_present(module.ln_pre),
        norm_final=is_present(module.ln_post),
        norm_pooled=is_present(module.ln_post) and module.final_ln_after_pool,
        pool=_POOLS[module.pool_type],
        **_tower_fields(module),
    )
    return Conversion(config, _VISION)


def _read_text(module: Any) -> Conversion:
    """A text transformer, or a CLIP that contains the parts of one."""
    in_pair = hasattr(module, "text_pool_type")
    pool, end = (module.text_pool_type, module.text_eos_id) if in_pair else (module.pool_type, module.eos_id)
    context, projection, mask = module.context_length, module.text_projection, module.attn_mask
    _refuse(
        (getattr(module, "cls_emb", None) is not None, "a class token whose mask depends on the prompt (embed_cls)"),
        (getattr(module, "use_pad_mask", False), "a mask that depends on the prompt (use_pad_mask)"),
        (pool not in _TEXT_POOLS, f"an output for every token (pool_type={pool!r})"),
        (mask is not None and not _is_causal(mask, context), "an attention mask that is neither causal nor absent"),
        (not is_present(module.ln_final), "no final norm in the text tower"),
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
        **_tower_fields(module),
    )
    return Conversion(config, _TEXT, unused=(r"visual\..*", "logit_scale", "logit_bias") if in_pair else ())


def _is_causal(mask: Tensor, context: int) -> bool:
    wanted = torch.full((context, context), -torch.inf).triu(1)
    return mask.shape == wanted.shape and torch.equal(mask.float().cpu(), wanted)


def _read_adapter(module: Any) -> Conversion:
    """A timm trunk and, if there is one, the linear projection after it."""
    try:
        trunk = _family_in(_TRUNKS, module.trunk).read(module.trunk)
    except PrismaError as error:  # its sizes contradict each other
        raise UnsupportedModelError(str(error)) from None
    head, config = dict(module.head.named_children()), trunk.config
    _refuse(
        ("mlp" in head, "a projection with a hidden layer (timm_proj='mlp')"),
        ("pool" in head, "attention pooling that adds positions (timm_pool)"),
        (not _has_only(module.head, "drop", "proj"), "a projection with additional parts"),
        ("proj" in head and bool(config.n_classes), "two projections, of the trunk and of the adapter"),
    )
    conversion = trunk.inside("trunk")
    if "proj" not in head:
        return conversion
    config = replace(config, n_classes=head["proj"].out_features, head_bias=head["proj"].bias is not None)
    return replace(conversion, config=config, rules=_PROJECTION + conversion.rules)


def _read_pair(module: Any) -> Conversion:
    """The vision side of a pair."""
    conversion = _family_in(_TOWERS, module.visual).read(module.visual).inside("visual")
    return replace(conversion, unused=(*conversion.unused, r"(?!visual\.).*"))


def _first(output: Any) -> Tensor:
    """The pooled features, if the tokens come with them (output_tokens)."""
    return output[0] if isinstance(output, tuple) else output


def _resblocks(module: Any) -> Sequence[nn.Module]:
    return module.transformer.resblocks


def _family_in(families: Iterable[Family], module: nn.Module) -> Family:
    """The one of these families that reads a part."""
    for family in families:
        if full_name(module) in family.classes:
            return family
    found = " and ".join(unsupported_properties(module))
    what = f"has {found}" if found else "Prisma does not read"
    raise UnsupportedModelError(f"not supported as an open_clip tower: {full_name(module)}, which {what}")


_TRUNKS = (*vit.FAMILIES, *eva.FAMILIES)
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
        blocks=lambda module: _family_in(_TRUNKS, module.trunk).blocks(module.trunk),  # type: ignore[arg-type]
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
        blocks=lambda module: _family_in(_TOWERS, module.visual).blocks(module.visual),  # type: ignore[arg-type]
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
"""Text towers. Their inputs are token ids [batch, context]."""
