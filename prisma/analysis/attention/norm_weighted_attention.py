"""Norm-weighted attention: the length of the vector that a query receives from a key, instead of its attention weight.

    ||A[q, k] v_k W_O||  for each head,   ||sum_heads A[q, k] v_k W_O||  for a layer

A token that receives much attention but has a short value (a sink) contributes nothing. Everything between the heads
and the residual stream is applied: layer scale, and the norms of `norm_z` and `norm="res_post"`. The divisors of these
norms are held at their values in this run, so that the vectors add up to the layer's output but for its biases.

Source: Kobayashi et al. 2004.10102; norms as in Kobayashi et al. 2109.07152.

Shapes: B image, L layer, H head, Q query, K key, D d_head, M d_model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from prisma.analysis.attention.token_grid import attention_scopes, image_passes
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.attention import Attention
from prisma.errors import PrismaError
from prisma.layers import epsilon, gain
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.sites import Cache
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class NormWeightedAttention(Result):
    """How long the vector is that each query receives from each key.

    In units of the residual stream: compare with the norm of the stream itself. 0 is a key that contributes nothing,
    however much attention it receives. `metadata["layers"]` has the numbers of the layers.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "layer_norms": ("image", "layer", "query", "key"),
        "head_norms": ("image", "layer", "head", "query", "key"),
    }
    layer_norms: Tensor  # of the sum over heads
    head_norms: Tensor

    @property
    def names(self) -> dict[str, list[str]]:
        return {"layer": [f"layer {layer}" for layer in self.metadata["layers"]]}

    def plot(self, array: str | None = None) -> "Figure":
        """By default a heat map [query, key] for every layer, the mean over images; `"head_norms"`: for every head."""
        name = array or "layer_norms"
        if name not in self.axes:
            return super().plot(name)  # whose error lists the arrays
        analysis = str(self.metadata["analysis"]).replace("_", " ")
        title = f"{analysis}: {name}, mean over {len(self.layer_norms)} images"
        return draw(self.arrays[name].mean(0), self.axes[name][1:], title=title, names=self.names)


@guarded
@torch.no_grad()
def norm_weighted_attention(
    model: ViT,
    images: Tensor,
    *,
    attention: str = "attn",
    layers: Sequence[int] | None = None,
    batch: int | None = None,
) -> NormWeightedAttention:
    """How much does each query really receive from each key: attention weight times the length of the value?

    A number near 0 is a key that adds nothing to the query, even with a large attention weight (an attention sink); a
    large number is one that changes the query's residual stream. `layer_norms` adds the heads' vectors before taking
    the length, so heads that cancel each other count as little.

    Args:
        images: [image, channel, (frame,) height, width].
        attention: `"attn"`; in a model with divided attention also `"time"`; in one with attention pooling also
            `"pool"`, which has one query and one layer.
        layers: numbers of the layers, by default all.
        batch: images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `layer_norms` [image, layer, query, key], `head_norms` [image, layer, head, query, key], in units of the
        residual stream.

    Raises:
        PrismaError: the images do not fit the model, or the model has no such attention or layer.

    Source: Kobayashi et al. 2004.10102.
    """
    scopes = attention_scopes(model.config, attention)
    chosen = list(range(len(scopes)) if layers is None else layers)
    if not chosen or any(not 0 <= layer < len(scopes) for layer in chosen):
        raise PrismaError(f"expected layers from 0 to {len(scopes) - 1}; found {chosen}")
    sites = [f"{scopes[layer]}.{name}" for layer in chosen for name in ("v", "pattern", "z")]
    parts: list[list[Tensor]] = []
    for some in image_passes(model, images, batch):
        _, acts = record(model, some, sites, stop=True)
        norms = [_norms(model, scopes[layer], acts) for layer in chosen]
        parts.append([torch.stack(of_layers, dim=1) for of_layers in zip(*norms, strict=True)])
    of_layer, of_head = (torch.cat(part) for part in zip(*parts, strict=True))
    metadata = {"analysis": "norm_weighted_attention", "attention": attention, "layers": chosen}
    return NormWeightedAttention(metadata=metadata, layer_norms=of_layer, head_norms=of_head)


def _norms(model: ViT, scope: str, acts: Cache) -> tuple[Tensor, Tensor]:
    """[image, query, key] and [image, head, query, key] of one attention."""
    pattern_BHQK, v_BKHD, z_BQHD = (acts[f"{scope}.{name}"] for name in ("pattern", "v", "z"))
    out_HDM, scale_BQ = _out(model, scope, z_BQHD.flatten(2))
    values_BKHM = torch.einsum("bkhd,hdm->bkhm", exact(v_BKHD), out_HDM.unflatten(0, v_BKHD.shape[2:]))
    # Products of pairs of heads, from which the norm of any sum of heads follows. In float64, because heads that cancel
    # each other leave a small difference of large products.
    products_BKHH = values_BKHM.double() @ values_BKHM.double().mT
    a_BKQH = pattern_BHQK.permute(0, 3, 2, 1).double()
    of_layer_BKQ = ((a_BKQH @ products_BKHH) * a_BKQH).sum(-1).clamp(min=0).sqrt().to(values_BKHM)
    of_head_BHQK = pattern_BHQK * values_BKHM.norm(dim=-1).transpose(1, 2)[:, :, None]
    return of_layer_BKQ.mT * scale_BQ[..., None], of_head_BHQK * scale_BQ[:, None, :, None]


def _out(model: ViT, scope: str, z_BQX: Tensor) -> tuple[Tensor, Tensor]:
    """The map from the concatenated heads X to the stream: a matrix [X, d_model] and a scale [image, query]."""
    why = "the map from heads to the residual stream"
    if scope == "pool":
        expect_plain(model, ["readout.attention_pool.out"], why)
        out = model.get_submodule("readout.attention_pool.out").get_parameter("weight")
        return exact(out).T, exact(z_BQX.new_ones(z_BQX.shape[:2]))
    name, kind = scope.rsplit(".", 1)
    block = model.get_submodule(name)
    attention = cast(Attention, block.get_submodule(kind))
    layer_scale, norm = ("scale1", "ln1") if kind == "attn" else ("scale_time", "ln_time")
    after = [norm] * (model.config.norm == "res_post")
    expect_plain(model, [f"{name}.{part}" for part in (kind, f"{kind}.ln", f"{kind}.out", layer_scale, *after)], why)
    out_XM, scale_BQ = exact(attention.out.weight).T, exact(z_BQX.new_ones(z_BQX.shape[:2]))
    if attention.ln is not None:
        before, scale_BQ = _frozen(attention.ln, z_BQX)
        out_XM, z_BQX = before @ out_XM, attention.ln(z_BQX)
    if model.config.norm == "res_post":
        normed, scale_after_BQ = _frozen(block.get_submodule(norm), attention.out(z_BQX))
        out_XM, scale_BQ = out_XM @ normed, scale_BQ * scale_after_BQ
    return block.get_submodule(layer_scale)(out_XM), scale_BQ


def _frozen(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A norm as a matrix [X, X] and the scale [image, query] of this run: norm(x) = scale x matrix + bias."""
    x = exact(x)
    identity_XX = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return identity_XX, x.new_ones(x.shape[:-1])
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
        identity_XX = identity_XX - 1 / x.shape[-1]
    return identity_XX * gain(norm).to(x), (x.square().mean(-1) + epsilon(norm, x)).rsqrt()
