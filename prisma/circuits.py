"""Weights of each head as the literature writes them, and the circuits that they form.

Row-vector convention: `q = x @ W_Q[head]`, and a head writes `z @ W_O[head]`. Views share memory with the model.

A norm is linear but for its divisor: LayerNorm(x) = x C diag(g) / sigma + b, where C subtracts the mean (RMSNorm has no
C). *Folded* weights include C diag(g), so that they act on the residual stream itself; they leave out the divisor, one
positive number for each token, and biases. They are in float32 at least, and their means are taken in float64, because
a mean may be large against what remains without it.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from prisma.attention import Attention
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.layers import gain
from prisma.numbers import exact
from prisma.plain import expect_plain, uncompiled
from prisma.vit import ViT

LN = ("none", "folded")
_WHY = "the weights of a layer"


def attentions(config: ViTConfig) -> list[tuple[int, str]]:
    """(layer, "attn") for all layers, in the order in which they run; in divided attention after (layer, "time")."""
    kinds = ("time", "attn") if config.attention == "divided" else ("attn",)
    return [(layer, kind) for layer in range(config.n_layers) for kind in kinds]


def weights(model: ViT, layer: int, attention: str = "attn") -> dict[str, Tensor]:
    """`W_Q`, `W_K`, `W_V` [head, d_model, d_head] and `W_O` [head, d_head, d_model] of one layer, as views.

    Args:
        attention: "attn", or "time" in divided attention.

    Raises:
        PrismaError: this model has no such layer or attention.
    """
    attn = _attention(model, layer, attention)
    _expect_plain(model, layer, attention, ("", ".qkv", ".out"))
    return {"W_Q": attn.W_Q, "W_K": attn.W_K, "W_V": attn.W_V, "W_O": attn.W_O}


def biases(model: ViT, layer: int, attention: str = "attn") -> dict[str, Tensor]:
    """`b_Q`, `b_K`, `b_V` [head, d_head], zeros in a model without them, and `b_O` [d_model].

    Raises:
        PrismaError: this model has no such layer or attention.
    """
    attn = _attention(model, layer, attention)
    _expect_plain(model, layer, attention, ("", ".qkv", ".out"))
    qkv = attn.qkv.weight.new_zeros(len(attn.qkv.weight)) if attn.qkv.bias is None else attn.qkv.bias
    q, k, v = qkv.unflatten(0, attn.split).unbind(0)
    return {"b_Q": q, "b_K": k, "b_V": v, "b_O": attn.out.bias}


def stream_weights(
    model: ViT, layer: int, attention: str = "attn", *, ln: str = "folded", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """`weights` as they act on the residual stream: W_O includes layer scale, and norms are folded in.

    Args:
        ln: "folded" includes the norm before attention (norm="pre") or on its output (norm="res_post"), and on z
            (norm_z); norms on the stream itself (norm="post") are part of no layer's weights. "none" includes no norm.
        dtype: the precision; by default float32 at least.

    Raises:
        PrismaError: this model has no such layer or attention, or `ln` has another value.
    """
    expect_ln(ln)
    w = {name: exact(x).to(dtype) for name, x in weights(model, layer, attention).items()}
    block, attn = model.blocks[layer], _attention(model, layer, attention)
    norm_name, scale_name = ("ln_time", "scale_time") if attention == "time" else ("ln1", "scale1")
    norm, scale = block.get_submodule(norm_name), block.get_submodule(scale_name)
    _expect_plain(model, layer, attention, (".ln", ".q_norm", ".k_norm"))
    expect_plain(model, [f"blocks.{layer}{part}" for part in ("", f".{norm_name}", f".{scale_name}")], _WHY)
    if ln == "folded":
        if model.config.norm == "pre":
            w |= {name: folded_in(norm, w[name]) for name in ("W_Q", "W_K", "W_V")}
        w["W_O"] = folded_in(attn.ln, w["W_O"].flatten(0, 1)).view_as(w["W_O"])
        if model.config.norm == "res_post":
            w["W_O"] = folded_out(norm, w["W_O"])
    return {**w, "W_O": scale(w["W_O"])}


def neuron_weights(model: ViT, layer: int, *, ln: str = "folded", dtype: torch.dtype | None = None) -> Tensor:
    """What each neuron writes to the residual stream for each unit of `mlp.post` [neuron, d_model].

    Args:
        ln: "folded" includes the norm on `mlp.post` (norm_post) and on the MLP's output (norm="res_post").
        dtype: as in `stream_weights`.

    Raises:
        PrismaError: this model has no such layer or no MLP, or `ln` has another value.
    """
    expect_ln(ln)
    if not model.config.d_mlp or not 0 <= layer < model.config.n_layers:
        raise PrismaError(
            f"expected a layer from 0 to {model.config.n_layers - 1} with an MLP; "
            f"found {layer} and d_mlp={model.config.d_mlp}"
        )
    block = model.blocks[layer]
    parts = ("", ".mlp", ".mlp.out", ".mlp.ln", ".ln2", ".scale2")
    expect_plain(model, [f"blocks.{layer}{part}" for part in parts], _WHY)
    mlp: Any = block.get_submodule("mlp")
    scale = block.get_submodule("scale2")
    w_NM = exact(mlp.out.weight).to(dtype).mT
    if ln == "folded":
        w_NM = folded_in(mlp.ln, w_NM)
        w_NM = folded_out(block.get_submodule("ln2"), w_NM) if model.config.norm == "res_post" else w_NM
    return scale(w_NM)


def ov(model: ViT, layer: int, attention: str = "attn", *, ln: str = "none") -> Tensor:
    """W_V W_O [head, d_model, d_model]: x_key OV is what a head writes at the query when it attends to the key.

    It includes layer scale, so that this is what is added to the residual stream.

    Raises:
        PrismaError: as `stream_weights`.
    """
    w = stream_weights(model, layer, attention, ln=ln)
    return w["W_V"] @ w["W_O"]


def qk(model: ViT, layer: int, attention: str = "attn", *, ln: str = "none") -> Tensor:
    """W_Q W_K^T [head, d_model, d_model]: scores = x_query QK x_key^T / sqrt(d_head), but for biases and rotation.

    Raises:
        PrismaError: the model has QK-norm, so its scores are not a bilinear form of the residual stream; or as
            `stream_weights`.
    """
    expect_bilinear(model.config)
    w = stream_weights(model, layer, attention, ln=ln)
    return w["W_Q"] @ w["W_K"].mT


def folded_in(norm: nn.Module | None, weight: Tensor) -> Tensor:
    """C diag(g) W, for a matrix W [..., d_model, any] that comes after a norm; W if there is no norm."""
    norm = None if norm is None else uncompiled(norm)
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return weight
    scaled = gain(norm).to(weight).double()[:, None] * weight.double()
    return _like(weight, scaled - scaled.mean(-2, keepdim=True) if isinstance(norm, nn.LayerNorm) else scaled)


def folded_out(norm: nn.Module | None, x: Tensor) -> Tensor:
    """x C diag(g), for vectors x [..., d_model] that go into a norm; x if there is no norm."""
    norm = None if norm is None else uncompiled(norm)
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return x
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else wide
    return _like(x, centred * gain(norm).to(x).double())


def _like(x: Tensor, wide: Tensor) -> Tensor:
    """A tensor in float64, in the precision of another, but float32 at least."""
    return wide.to(torch.promote_types(x.dtype, torch.float32))


def stream_norms(model: ViT, layer: int, branch: str) -> Iterator[nn.Module]:
    """The norms on the stream between a branch ("time", "attn" or "mlp") and the readout's own norm."""
    if model.config.norm != "post":
        return
    for later in range(layer, model.config.n_layers):
        for name in ("ln1", "ln2"):
            if later > layer or (name, branch) != ("ln1", "mlp"):
                expect_plain(model, [f"blocks.{later}.{name}"], _WHY)
                yield model.blocks[later].get_submodule(name)


def _expect_plain(model: ViT, layer: int, attention: str, parts: tuple[str, ...]) -> None:
    expect_plain(model, [f"blocks.{layer}.{attention}{part}" for part in parts], _WHY)


def expect_ln(ln: str) -> None:
    """Raises PrismaError: `ln` is not in `LN`."""
    if ln not in LN:
        raise PrismaError(
            f"expected ln to be none (norms left out) or folded (norms folded into the weights); found {ln!r}"
        )


def expect_bilinear(config: ViTConfig) -> None:
    """Raises PrismaError: scores are not a bilinear form of the residual stream, because of QK-norm."""
    if config.qk_norm:
        raise PrismaError(
            "a QK circuit needs a model with qk_norm=False; found qk_norm=True, which normalises each head's q and k"
        )


def _attention(model: ViT, layer: int, attention: str) -> Attention:
    if (layer, attention) not in attentions(model.config):
        kinds = " or ".join(sorted({kind for _, kind in attentions(model.config)})) or "none"
        raise PrismaError(
            f"expected a layer from 0 to {model.config.n_layers - 1} and an attention of this model, {kinds}; "
            f"found {layer} and {attention!r}"
        )
    found: Any = model.blocks[layer].get_submodule(attention)
    return cast(Attention, found)
