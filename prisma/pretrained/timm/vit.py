"""timm's VisionTransformer, with all of its blocks except those with differential attention.

Blocks of "Three things everyone should know about ViTs" (Touvron et al. 2203.09795) have N attentions in parallel, each
after a norm of its own. The weight and bias of a norm fold into the matrix after it, so the N attentions equal one with
N times the heads, after one norm without weight and bias. N MLPs equal one of N times the width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prisma.config import ViTConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.parts import activation, is_present
from prisma.pretrained.rules import Context, Conversion, Rule, both, rules
from prisma.pretrained.tensors import averaged_heads, ones, zeros
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

TOKENS = ("cls_token", "dist_token", "reg_token")


def read(module: Any) -> Conversion:
    """The conversion of a VisionTransformer. Raises UnsupportedModelError."""
    block, kind = module.blocks[0], type(module.blocks[0]).__name__
    if kind not in BLOCKS:
        raise UnsupportedModelError(f"the block {kind} is not supported (supported: {', '.join(BLOCKS)})")
    fields, table = BLOCKS[kind](block)
    embed, readout = embed_fields(module), readout_fields(module, fields)
    distilled = getattr(module, "dist_token", None) is not None
    if distilled and not (readout["n_classes"] and is_present(module.head_dist) and module.reg_token is None):
        raise UnsupportedModelError("a distillation token is supported only with two heads and without registers")
    has_class = module.cls_token is not None
    config = ViTConfig(
        **{
            **embed,
            **readout,
            **fields,
            **({"pool": "distilled"} if distilled else {}),
            "n_layers": len(module.blocks),
            "d_model": module.embed_dim,
            **norm_fields(module),
            "class_token": has_class,
            "registers": module.num_prefix_tokens - int(has_class),
            "pool_prefix": module.pool_include_prefix and readout["pool"] in ("mean", "attention"),
        }
    )
    head = DISTILLED if distilled else ()
    gate_last = getattr(getattr(block, "mlp", None), "gate_last", None)
    gated = () if gate_last is None else GATED
    facts = {"gate_last": gate_last}
    return Conversion(config, (prefix_rule(module, TOKENS), *head, *gated, *table, *TABLE), facts=facts)


def _block(block: Any) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    attn = block.attn
    if type(attn).__name__ != "Attention" or attn.gate is not None:
        raise UnsupportedModelError(
            f"{type(attn).__name__} is not supported: attention must be one softmax per head, without a gate"
        )
    res_post = type(block).__name__ == "ResPostBlock"
    return {
        **mlp_fields(block.mlp),
        "n_heads": attn.num_heads,
        "d_head": attn.head_dim,
        "norm": "res_post" if res_post else "pre",
        "norm_z": is_present(attn.norm),
        "qk_norm": is_present(attn.q_norm),
        "qkv_bias": attn.qkv.bias is not None,
        "layer_scale": not res_post and is_present(block.ls1),
    }, ()


def _parallel_scaling(block: Any) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    return {
        "n_heads": block.num_heads,
        "d_head": block.head_dim,
        "d_mlp": block.in_split[0],
        "activation": activation(block.mlp_act),
        "parallel": True,
        "qk_norm": is_present(block.q_norm),
        "qkv_bias": block.in_proj.bias is not None,
        "layer_scale": is_present(block.ls),
    }, PARALLEL


def _parallel_things(block: Any) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    attns, mlps = block.attns, block.ffns
    first = attns[0].attn
    if (
        type(first).__name__ != "Attention"
        or is_present(first.q_norm)
        or is_present(first.norm)
        or first.gate is not None
    ):
        raise UnsupportedModelError("parallel attentions that contain norms or gates are not supported")
    fields = mlp_fields(mlps[0].mlp)
    if fields["gated_mlp"] or fields["norm_post"] or type(attns[0].norm).__name__ != "LayerNorm":
        raise UnsupportedModelError(
            "parallel MLPs that are gated, contain a norm, or follow a norm that is no LayerNorm are not supported"
        )
    return {
        **fields,
        "d_mlp": fields["d_mlp"] * len(mlps),
        "n_heads": first.num_heads * len(attns),
        "d_head": first.head_dim,
    }, _side_by_side(len(attns), is_present(attns[0].ls))


BLOCKS: dict[str, Callable[[Any], tuple[dict[str, Any], tuple[Rule, ...]]]] = {
    "Block": _block,
    "ResPostBlock": _block,
    "ParallelScalingBlock": _parallel_scaling,
    "ParallelThingsBlock": _parallel_things,
}
"""Class of a block -> the fields of the config that it determines, and its rules besides TABLE."""


def _mlp_rows(context: Context, packed: Tensor) -> Tensor:
    """The rows of the MLP, of a matrix that reads for both branches."""
    return packed[: context.config.d_mlp]


def _qkv_rows(context: Context, packed: Tensor) -> Tensor:
    return packed[context.config.d_mlp :]


def _attention_columns(context: Context, packed: Tensor) -> Tensor:
    return packed[:, : context.config.d_model]


def _mlp_columns(context: Context, packed: Tensor) -> Tensor:
    return packed[:, context.config.d_model :]


_KINDS = ("weight", "bias")
PARALLEL = rules(
    *((f"blocks.{{l}}.{ln}.{kind}", f"blocks.{{l}}.in_norm.{kind}") for ln in ("ln1", "ln2") for kind in _KINDS),
    *((f"blocks.{{l}}.mlp.pre.{kind}", f"blocks.{{l}}.in_proj.{kind}", _mlp_rows) for kind in _KINDS),
    ("blocks.{l}.mlp.pre.bias", "blocks.{l}.mlp_bias"),
    *((f"blocks.{{l}}.attn.qkv.{kind}", f"blocks.{{l}}.in_proj.{kind}", _qkv_rows) for kind in _KINDS),
    *((f"blocks.{{l}}.attn.{x}_norm.{kind}", f"blocks.{{l}}.{x}_norm.{kind}") for x in "qk" for kind in _KINDS),
    *((f"blocks.{{l}}.attn.out.{kind}", f"blocks.{{l}}.attn_out_proj.{kind}") for kind in _KINDS),
    *((f"blocks.{{l}}.mlp.out.{kind}", f"blocks.{{l}}.mlp_out_proj.{kind}") for kind in _KINDS),
    ("blocks.{l}.attn.out.weight", "blocks.{l}.out_proj.weight", _attention_columns),
    ("blocks.{l}.mlp.out.weight", "blocks.{l}.out_proj.weight", _mlp_columns),
    ("blocks.{l}.attn.out.bias", "blocks.{l}.out_proj.bias"),  # one bias for both branches
    *((f"blocks.{{l}}.{scale}.weight", "blocks.{l}.ls.gamma") for scale in ("scale1", "scale2")),
)


def _side_by_side(n: int, scaled: bool) -> tuple[Rule, ...]:
    """Rules for n parallel attentions and n parallel MLPs; `scaled`: with layer scale."""

    def each(branch: str, *names: str) -> str:
        return " ".join(f"blocks.{{l}}.{branch}.{i}.{name}" for i in range(n) for name in names)

    def grouped(make: Callable[..., Tensor], join: Callable[[list[Tensor]], Tensor]) -> Callable[..., Tensor]:
        """Make a tensor from those of each branch, then join them."""

        def made(_: Context, *tensors: Tensor) -> Tensor:
            size = len(tensors) // n
            return join([make(*tensors[i : i + size]) for i in range(0, len(tensors), size)])

        return made

    scale = ("ls.gamma",) if scaled else ()
    table: list[Any] = []
    for branch, inner, outer, ours_in, ours_out, ln, rows in SIDES:
        reads, join = f"{inner}.weight", lambda parts, rows=rows: _interleaved(parts, rows)
        table += [
            (f"{ours_in}.weight", each(branch, reads, "norm.weight"), grouped(_folded_scale, join)),
            (f"{ours_in}.bias", each(branch, reads, "norm.bias", f"{inner}.bias"), grouped(_folded_shift, join)),
            (f"{ours_in}.bias", each(branch, reads, "norm.bias"), grouped(_folded_shift, join)),
            (
                f"{ours_out}.weight",
                each(branch, f"{outer}.weight", *scale),
                grouped(_scaled, partial(torch.cat, dim=1)),
            ),
            (f"{ours_out}.bias", each(branch, f"{outer}.bias", *scale), grouped(_scaled, _summed)),
            (f"{ln}.weight", f"blocks.{{l}}.{branch}.0.norm.weight", ones),
            (f"{ln}.bias", f"blocks.{{l}}.{branch}.0.norm.bias", zeros),
        ]
    return rules(*((f"blocks.{{l}}.{ours}", *rest) for ours, *rest in table))


SIDES = (
    ("attns", "attn.qkv", "attn.proj", "attn.qkv", "attn.out", "ln1", 3),
    ("ffns", "mlp.fc1", "mlp.fc2", "mlp.pre", "mlp.out", "ln2", 1),
)
"""Their branch and its first and last matrix; ours; our norm; how many matrices (q, k, v) the first one contains."""


def _interleaved(parts: list[Tensor], rows: int) -> Tensor:
    """[q k v] of each branch -> the q of all branches, then the k of all, then the v of all."""
    return torch.cat([x for same in zip(*(part.chunk(rows) for part in parts), strict=True) for x in same])


def _summed(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


def _folded_scale(weight: Tensor, scale: Tensor) -> Tensor:
    """W (x * scale) = (W * scale) x."""
    return weight * scale


def _folded_shift(weight: Tensor, shift: Tensor, bias: Tensor | None = None) -> Tensor:
    """W (x + shift) + bias = W x + (W shift + bias)."""
    return weight @ shift if bias is None else weight @ shift + bias


def _scaled(weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """Rows of a matrix, or a bias, multiplied by layer scale."""
    return weight if scale is None else scale.view(-1, *[1] * (weight.ndim - 1)) * weight


DISTILLED = rules(*both("readout.head", "head head_dist", make=averaged_heads))

FAMILIES = (
    family(
        "timm VisionTransformer",
        ("timm.models.vision_transformer.VisionTransformer", "timm.models.deit.VisionTransformerDistilled"),
        read,
    ),
)
