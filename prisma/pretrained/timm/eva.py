"""timm's Eva: EVA, EVA-02, Perception Encoder, DINOv3, Sapiens 2.

Rotary positions of any scheme become tables of cosines and sines; grouped keys and values are repeated.
"""

from typing import Any

from torch import Tensor

from prisma.config import ViTConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.parts import is_present
from prisma.pretrained.rules import Conversion, Rule
from prisma.pretrained.tensors import fact, rotation_table
from prisma.pretrained.timm.parts import (
    GATED,
    TABLE,
    embed_fields,
    family,
    mlp_fields,
    norm_fields,
    prefix_rule,
    readout_fields,
)

BLOCKS = {"EvaBlock": "pre", "EvaBlockPostNorm": "res_post"}
"""Class of a block -> the config's `norm`: before or after the branches."""


def read(module: Any) -> Conversion:
    """The conversion of an Eva. Raises UnsupportedModelError."""
    block = module.blocks[0]
    if (kind := type(block).__name__) not in BLOCKS:
        raise UnsupportedModelError(f"the block {kind} is not supported (supported: {', '.join(BLOCKS)})")
    attn = block.attn
    if attn.gate is not None:
        raise UnsupportedModelError(
            "gated attention is not supported: z would not be the values averaged by the pattern"
        )
    rotary = _rotary(module)
    mlp = mlp_fields(block.mlp)
    readout = readout_fields(module, mlp)
    config = ViTConfig(
        **embed_fields(module),
        **readout,
        **mlp,
        n_layers=len(module.blocks),
        d_model=module.embed_dim,
        n_heads=attn.num_heads,
        d_head=attn.head_dim,
        norm=BLOCKS[kind],
        **norm_fields(module),
        norm_z=is_present(attn.norm),
        qk_norm=is_present(attn.q_norm),
        qkv_bias=_has_bias(attn),
        layer_scale=getattr(block, "gamma_1", None) is not None,
        rotary=rotary,
        class_token=module.cls_token is not None,
        registers=module.num_prefix_tokens - int(module.cls_token is not None),
        pool_prefix=readout["pool"] == "attention" and module.num_prefix_tokens > 0,
    )
    gate_last = getattr(block.mlp, "gate_last", None)
    gated = () if gate_last is None else GATED
    facts = {"gate_last": gate_last, "interleaved": rotary != "none" and not attn.rotate_half}
    rotation_rule: tuple[Rule, ...] = ()
    if rotary != "none":
        facts["rotation"] = _rotation(module)
        learned = [name for name, _ in module.named_parameters() if name.startswith("rope.")]
        rotation_rule = (Rule("blocks.{l}.attn.rotation", tuple(learned), fact("rotation")),)
    return Conversion(
        config, (prefix_rule(module, ("cls_token", "reg_token")), *gated, *rotation_rule, *TABLE), facts=facts
    )


def _has_bias(attn: Any) -> bool:
    linear = attn.q_proj if attn.qkv is None else attn.qkv
    return linear.bias is not None or getattr(attn, "q_bias", None) is not None


def _rotary(module: Any) -> str:
    if module.rope is None:
        return "none"
    return "head_table" if module.rope_mixed else "table"


def _rotation(module: Any) -> Tensor | list[Tensor]:
    """Cosines and sines computed by the source for its grid of patches: one table, or one for each layer."""
    rope, grid = module.rope, module.patch_embed.grid_size
    own = not module.dynamic_img_size and hasattr(rope, "feat_shape")
    found = rope.get_embed() if own else rope.get_embed(shape=grid)
    tables = [found] if not module.rope_mixed else list(found)
    interleaved = not module.blocks[0].attn.rotate_half
    made = []
    for table in tables:
        sin, cos = table.detach().chunk(2, -1)
        made.append(rotation_table(cos, sin, interleaved=interleaved))
    return made if module.rope_mixed else made[0]


FAMILIES = (family("timm Eva", ("timm.models.eva.Eva",), read),)
