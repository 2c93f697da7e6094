"""timm's VisionTransformer, with every block but those of differential attention.

Blocks of "Three things everyone should know about ViTs" (Touvron et al. 2203.09795) run N attentions side by side,
each behind a norm of its own. A norm's weight and bias fold into the matrix that reads it, so that they are one
attention of N times the heads behind a norm without either, and N MLPs are one of N times the width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prisma.config import ViTConfig
from prisma.pretrained.family import Family
from prisma.pretrained.parts import activation, norm, there
from prisma.pretrained.rules import Context, Rule, Source, UnsupportedModelError, rules
from prisma.pretrained.timm_parts import GATED, TABLE, embed_facts, mlp_facts, prefix_rule, readout_facts

TOKENS = ("cls_token", "dist_token", "reg_token")


def read(module: Any) -> Source:
    """Raises UnsupportedModelError."""
    block, kind = module.blocks[0], type(module.blocks[0]).__name__
    if kind not in BLOCKS:
        raise UnsupportedModelError(f"the block {kind} is not supported; those that are: {', '.join(BLOCKS)}")
    fields, table = BLOCKS[kind](block)
    embed, readout = embed_facts(module), readout_facts(module, fields)
    distilled = getattr(module, "dist_token", None) is not None
    if distilled and not (readout["n_classes"] and there(module.head_dist) and module.reg_token is None):
        raise UnsupportedModelError("a distillation token without two heads, or beside registers, is not supported")
    norms = (m for name, m in module.named_modules() if name.rpartition(".")[2].endswith(("norm", "norm1", "norm2")))
    kind_of_norm, eps = norm([*norms, module.norm_pre])
    has_class = module.cls_token is not None
    config = ViTConfig(
        **{
            **embed,
            **readout,
            **fields,
            **({"pool": "distilled"} if distilled else {}),
            "n_layers": len(module.blocks),
            "d_model": module.embed_dim,
            "norm_kind": kind_of_norm,
            "norm_eps": eps,
            "class_token": has_class,
            "registers": module.num_prefix_tokens - int(has_class),
            "pool_prefix": module.pool_include_prefix and readout["pool"] in ("mean", "attention"),
        }
    )
    head = DISTILLED if distilled else ()
    gate_last = getattr(getattr(block, "mlp", None), "gate_last", None)
    gated = () if gate_last is None else GATED
    facts = {"gate_last": gate_last}
    return Source(config, (prefix_rule(module, TOKENS), *head, *gated, *table, *TABLE), facts=facts)


def _block(block: Any) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    attn = block.attn
    if type(attn).__name__ != "Attention" or attn.gate is not None:
        raise UnsupportedModelError(
            f"{type(attn).__name__} is not supported: attention must be one ungated softmax per head"
        )
    res_post = type(block).__name__ == "ResPostBlock"
    return {
        **mlp_facts(block.mlp),
        "n_heads": attn.num_heads,
        "d_head": attn.head_dim,
        "norm": "res_post" if res_post else "pre",
        "norm_z": there(attn.norm),
        "qk_norm": there(attn.q_norm),
        "qkv_bias": attn.qkv.bias is not None,
        "layer_scale": not res_post and there(block.ls1),
    }, ()


def _parallel_scaling(block: Any) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    return {
        "n_heads": block.num_heads,
        "d_head": block.head_dim,
        "d_mlp": block.in_split[0],
        "activation": activation(block.mlp_act),
        "parallel": True,
        "qk_norm": there(block.q_norm),
        "qkv_bias": block.in_proj.bias is not None,
        "layer_scale": there(block.ls),
    }, PARALLEL


def _parallel_things(block: Any) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    attns, mlps = block.attns, block.ffns
    first = attns[0].attn
    if type(first).__name__ != "Attention" or there(first.q_norm) or there(first.norm) or first.gate is not None:
        raise UnsupportedModelError("parallel attentions with norms or gates of their own inside are not supported")
    facts = mlp_facts(mlps[0].mlp)
    if facts["gated_mlp"] or facts["norm_post"] or type(attns[0].norm).__name__ != "LayerNorm":
        raise UnsupportedModelError(
            "parallel MLPs that are gated, have a norm inside, or stand behind another norm are not supported"
        )
    return {
        **facts,
        "d_mlp": facts["d_mlp"] * len(mlps),
        "n_heads": first.num_heads * len(attns),
        "d_head": first.head_dim,
    }, _side_by_side(len(attns), there(attns[0].ls))


BLOCKS: dict[str, Callable[[Any], tuple[dict[str, Any], tuple[Rule, ...]]]] = {
    "Block": _block,
    "ResPostBlock": _block,
    "ParallelScalingBlock": _parallel_scaling,
    "ParallelThingsBlock": _parallel_things,
}
"""Class of a block -> what it tells: fields of the configuration, and rules of its own."""


def _inner(context: Context, packed: Tensor, *bias: Tensor) -> Tensor:
    """The MLP's rows of a matrix that serves both branches."""
    return packed[: context.config.d_mlp]


def _qkv(context: Context, packed: Tensor) -> Tensor:
    return packed[context.config.d_mlp :]


def _attention_columns(context: Context, packed: Tensor) -> Tensor:
    return packed[:, : context.config.d_model]


def _mlp_columns(context: Context, packed: Tensor) -> Tensor:
    return packed[:, context.config.d_model :]


_KINDS = ("weight", "bias")
PARALLEL = rules(
    *((f"blocks.{{l}}.{ln}.{kind}", f"blocks.{{l}}.in_norm.{kind}") for ln in ("ln1", "ln2") for kind in _KINDS),
    *((f"blocks.{{l}}.mlp.pre.{kind}", f"blocks.{{l}}.in_proj.{kind}", _inner) for kind in _KINDS),
    ("blocks.{l}.mlp.pre.bias", "blocks.{l}.mlp_bias"),
    *((f"blocks.{{l}}.attn.qkv.{kind}", f"blocks.{{l}}.in_proj.{kind}", _qkv) for kind in _KINDS),
    *((f"blocks.{{l}}.attn.{x}_norm.{kind}", f"blocks.{{l}}.{x}_norm.{kind}") for x in "qk" for kind in _KINDS),
    *((f"blocks.{{l}}.attn.out.{kind}", f"blocks.{{l}}.attn_out_proj.{kind}") for kind in _KINDS),
    *((f"blocks.{{l}}.mlp.out.{kind}", f"blocks.{{l}}.mlp_out_proj.{kind}") for kind in _KINDS),
    ("blocks.{l}.attn.out.weight", "blocks.{l}.out_proj.weight", _attention_columns),
    ("blocks.{l}.mlp.out.weight", "blocks.{l}.out_proj.weight", _mlp_columns),
    ("blocks.{l}.attn.out.bias", "blocks.{l}.out_proj.bias"),  # one bias for both branches
    *((f"blocks.{{l}}.{scale}.weight", "blocks.{l}.ls.gamma") for scale in ("scale1", "scale2")),
)


def _side_by_side(n: int, scaled: bool) -> tuple[Rule, ...]:
    """Rules for n parallel attentions and n parallel MLPs."""

    def each(branch: str, *names: str) -> str:
        return " ".join(f"blocks.{{l}}.{branch}.{i}.{name}" for i in range(n) for name in names)

    def grouped(make: Callable[..., Tensor], join: Callable[[list[Tensor]], Tensor]) -> Callable[..., Tensor]:
        """Make one tensor of each branch's, then join them."""

        def made(_: Context, *tensors: Tensor) -> Tensor:
            size = len(tensors) // n
            return join([make(*tensors[i : i + size]) for i in range(0, len(tensors), size)])

        return made

    scale = ("ls.gamma",) if scaled else ()
    table: list[Any] = []
    for branch, inner, outer, ours_in, ours_out, ln, rows in SIDES:
        reads, join = f"{inner}.weight", lambda parts, rows=rows: _interleaved(parts, rows)
        table += [
            (f"{ours_in}.weight", each(branch, reads, "norm.weight"), grouped(_behind_scale, join)),
            (f"{ours_in}.bias", each(branch, reads, "norm.bias", f"{inner}.bias"), grouped(_behind_shift, join)),
            (f"{ours_in}.bias", each(branch, reads, "norm.bias"), grouped(_behind_shift, join)),
            (
                f"{ours_out}.weight",
                each(branch, f"{outer}.weight", *scale),
                grouped(_scaled, partial(torch.cat, dim=1)),
            ),
            (f"{ours_out}.bias", each(branch, f"{outer}.bias", *scale), grouped(_scaled, _summed)),
            (f"{ln}.weight", f"blocks.{{l}}.{branch}.0.norm.weight", _ones),
            (f"{ln}.bias", f"blocks.{{l}}.{branch}.0.norm.bias", _zeros),
        ]
    return rules(*((f"blocks.{{l}}.{ours}", *rest) for ours, *rest in table))


SIDES = (
    ("attns", "attn.qkv", "attn.proj", "attn.qkv", "attn.out", "ln1", 3),
    ("ffns", "mlp.fc1", "mlp.fc2", "mlp.pre", "mlp.out", "ln2", 1),
)
"""Their branch, its matrices that read and write; ours; the norm; how many matrices (q, k, v) the first one holds."""


def _interleaved(parts: list[Tensor], rows: int) -> Tensor:
    """[q k v] of each branch -> the q of all, the k of all, the v of all."""
    return torch.cat([x for same in zip(*(part.chunk(rows) for part in parts), strict=True) for x in same])


def _summed(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


def _behind_scale(weight: Tensor, scale: Tensor) -> Tensor:
    """W (x * scale) = (W * scale) x."""
    return weight * scale


def _behind_shift(weight: Tensor, shift: Tensor, bias: Tensor | None = None) -> Tensor:
    """W (x + shift) + bias = W x + (W shift + bias)."""
    return weight @ shift if bias is None else weight @ shift + bias


def _ones(_: Context, like: Tensor) -> Tensor:
    return torch.ones_like(like)


def _zeros(_: Context, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


def _scaled(weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """Rows of a matrix, or a bias, times layer scale."""
    return weight if scale is None else scale.view(-1, *[1] * (weight.ndim - 1)) * weight


def _heads(_: Context, *tensors: Tensor) -> Tensor:
    """Two heads whose answers are averaged: one head that reads both tokens, or the mean of their biases."""
    both = [x / 2 for x in tensors]
    return torch.cat(both, dim=1) if both[0].ndim == 2 else sum(both[1:], both[0])


DISTILLED = rules(*((f"readout.head.{kind}", f"head.{kind} head_dist.{kind}", _heads) for kind in _KINDS))

FAMILIES = (
    Family(
        name="timm VisionTransformer",
        library="timm",
        classes=(
            "timm.models.vision_transformer.VisionTransformer",
            "timm.models.deit.VisionTransformerDistilled",
        ),
        read=read,
        answer=lambda module, images: module(images),
        blocks=lambda module: list(module.blocks),  # type: ignore[arg-type]
    ),
)
