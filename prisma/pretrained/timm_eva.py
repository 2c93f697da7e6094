"""timm's Eva: EVA, EVA-02, Perception Encoder, DINOv3, Sapiens 2.

Rotary positions become tables of cosines and sines, whatever their scheme; grouped keys and values are repeated.
"""

from typing import Any

from torch import Tensor

from prisma.config import ViTConfig
from prisma.pretrained.family import Family
from prisma.pretrained.parts import fixed, norm, rotation_table, there
from prisma.pretrained.rules import Rule, Source, UnsupportedModelError
from prisma.pretrained.timm_parts import GATED, TABLE, embed_facts, mlp_facts, prefix_rule, readout_facts

BLOCKS = {"EvaBlock": "pre", "EvaBlockPostNorm": "res_post"}
"""Class of a block -> where its norms stand."""


def read(module: Any) -> Source:
    """Raises UnsupportedModelError."""
    block = module.blocks[0]
    if (kind := type(block).__name__) not in BLOCKS:
        raise UnsupportedModelError(f"the block {kind} is not supported; those that are: {', '.join(BLOCKS)}")
    attn = block.attn
    if attn.gate is not None:
        raise UnsupportedModelError(
            "gated attention is not supported: z would not be what the pattern takes from the values"
        )
    norms = (m for name, m in module.named_modules() if name.rpartition(".")[2].endswith(("norm", "norm1", "norm2")))
    kind_of_norm, eps = norm([*norms, module.norm_pre])
    rotary = _rotary(module)
    mlp = mlp_facts(block.mlp)
    readout = readout_facts(module, mlp)
    config = ViTConfig(
        **embed_facts(module),
        **readout,
        **mlp,
        n_layers=len(module.blocks),
        d_model=module.embed_dim,
        n_heads=attn.num_heads,
        d_head=attn.head_dim,
        norm=BLOCKS[kind],
        norm_kind=kind_of_norm,
        norm_eps=eps,
        norm_z=there(attn.norm),
        qk_norm=there(attn.q_norm),
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
    turning: tuple[Rule, ...] = ()
    if rotary != "none":
        facts["rotation"] = _rotation(module)
        learned = [name for name, _ in module.named_parameters() if name.startswith("rope.")]
        turning = (Rule("blocks.{l}.attn.rotation", tuple(learned), fixed("rotation")),)
    return Source(config, (prefix_rule(module, ("cls_token", "reg_token")), *gated, *turning, *TABLE), facts=facts)


def _has_bias(attn: Any) -> bool:
    linear = attn.q_proj if attn.qkv is None else attn.qkv
    return linear.bias is not None or getattr(attn, "q_bias", None) is not None


def _rotary(module: Any) -> str:
    if module.rope is None:
        return "none"
    return "head_table" if module.rope_mixed else "table"


def _rotation(module: Any) -> Tensor | list[Tensor]:
    """What the model's own rotation says for its grid: one table, or one per layer."""
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


FAMILIES = (
    Family(
        name="timm Eva",
        library="timm",
        classes=("timm.models.eva.Eva",),
        read=read,
        answer=lambda module, images: module(images),
        blocks=lambda module: list(module.blocks),  # type: ignore[arg-type]
    ),
)
