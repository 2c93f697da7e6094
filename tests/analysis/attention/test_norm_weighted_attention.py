"""Norm-weighted attention against loops over images, heads, queries and keys; what the loops find adds up."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from prisma import PrismaError, ViT
from prisma.analysis.attention.norm_weighted_attention import norm_weighted_attention
from prisma.attention import Attention
from prisma.runs import record
from tests.planted_heads import planted
from tests.variants import WITH_LAYERS, images_of, model_of


def frozen(norm: nn.Module, part: Tensor, whole: Tensor) -> Tensor:
    """A part of what a norm reads, through the norm with the scale that the whole has."""
    if isinstance(norm, nn.LayerNorm):
        part, whole = part - part.mean(), whole - whole.mean()
    return part / torch.sqrt((whole**2).mean() + norm.eps) * norm.weight


def received(model: ViT, image: Tensor, layer: int, kind: str) -> Tensor:
    """[head, query, key, d_model]: what the stream of a query receives from a key through a head."""
    names = [f"blocks.{layer}.{kind}.{site}" for site in ("v", "pattern", "z")]
    v, pattern, z = (record(model, image[None], [name])[1][name][0] for name in names)
    block = model.blocks[layer]
    attention = block.get_submodule(kind)
    assert isinstance(attention, Attention)
    heads, n = pattern.shape[:2]
    out = torch.zeros(heads, n, n, model.config.d_model, dtype=torch.float64)
    for head in range(heads):
        for q in range(n):
            heads_side_by_side = z[q].flatten()
            written = attention.out(heads_side_by_side if attention.ln is None else attention.ln(heads_side_by_side))
            for k in range(n):
                part = torch.zeros_like(z[q])
                part[head] = pattern[head, q, k] * v[k, head]
                part = part.flatten()
                part = part if attention.ln is None else frozen(attention.ln, part, heads_side_by_side)
                part = attention.out.weight @ part
                if model.config.norm == "res_post":
                    part = frozen(block.get_submodule("ln1"), part, written)
                out[head, q, k] = block.get_submodule("scale1" if kind == "attn" else "scale_time")(part)
    return out


@pytest.mark.parametrize("variant", WITH_LAYERS)
@torch.no_grad()
def test_it_is_what_the_loops_find(variant: str) -> None:
    model = model_of(variant, seed=1)
    for name, bias in model.named_parameters():
        if name.startswith("blocks") and name.endswith("bias") and "qkv" not in name:
            bias.zero_()  # so that all of a branch's output comes from keys
    images, last = images_of(model), model.config.n_layers - 1
    for kind in ("attn", "time") if model.config.attention == "divided" else ("attn",):
        parts = received(model, images[1], last, kind)
        out = "attn_out" if kind == "attn" else "time_out"
        _, acts = record(model, images, [f"blocks.{last}.{out}"])
        whole = acts[f"blocks.{last}.{out}"][1, -parts.shape[1] :]
        torch.testing.assert_close(parts.sum((0, 2)), whole, rtol=1e-9, atol=1e-10)
        found = norm_weighted_attention(model, images, attention=kind, batch=1)
        torch.testing.assert_close(found.head_norms[1, last], parts.norm(dim=-1), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.layer_norms[1, last], parts.sum(0).norm(dim=-1), rtol=1e-8, atol=1e-8)
        assert found.head_norms.shape[:3] == (2, model.config.n_layers, model.config.n_heads)


@torch.no_grad()
def test_attention_pooling_has_one_query() -> None:
    model = model_of("pool_attention_heads")  # two heads
    images = images_of(model)
    found = norm_weighted_attention(model, images, attention="pool")
    _, acts = record(model, images, ["pool.v", "pool.pattern"])
    assert model.readout.attention_pool is not None
    out = model.readout.attention_pool.out.weight.view(12, 2, 6)
    vectors = torch.einsum("bhqk,bkhd,mhd->bhqkm", acts["pool.pattern"], acts["pool.v"], out)
    torch.testing.assert_close(found.head_norms[:, 0], vectors.norm(dim=-1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.layer_norms[:, 0], vectors.sum(1).norm(dim=-1), rtol=1e-8, atol=1e-8)
    assert found.layer_norms.shape == (2, 1, 1, 9)


def test_a_sink_with_a_short_value_receives_weight_and_gives_nothing() -> None:
    look = torch.tensor([[0.8, 0.1, 0.1]] * 3)
    model = planted({(0, 0): look}, image_size=(1, 2), n_layers=1, n_heads=1)
    with torch.no_grad():
        attention = model.blocks[0].get_submodule("attn")
        attention.qkv.weight.view(3, 3, 3)[2, 0, 1] = 2.0  # the first patch has a value of length 2
        attention.out.weight.copy_(torch.eye(3))
    found = norm_weighted_attention(model, torch.zeros(1, 1, 1, 2, dtype=torch.float64))
    torch.testing.assert_close(found.head_norms[0, 0, 0], torch.tensor([[0, 0.2, 0]] * 3, dtype=torch.float64))
    torch.testing.assert_close(found.layer_norms[0, 0], torch.tensor([[0, 0.2, 0]] * 3, dtype=torch.float64))


def test_layers_may_be_chosen() -> None:
    model = model_of("base")
    images = images_of(model)
    all_of_them, last = norm_weighted_attention(model, images), norm_weighted_attention(model, images, layers=[1])
    torch.testing.assert_close(last.head_norms[:, 0], all_of_them.head_norms[:, 1])
    assert last.metadata["layers"] == [1]
    for layers in ([2], [-1], []):
        with pytest.raises(PrismaError, match="expected layers from 0 to 1"):
            norm_weighted_attention(model, images, layers=layers)
    with pytest.raises(PrismaError, match=r"expected an attention of this model \(attn\); found 'pool'"):
        norm_weighted_attention(model, images, attention="pool")


def test_the_picture_is_a_mean_over_images_and_names_the_layers() -> None:
    model = model_of("base")
    found = norm_weighted_attention(model, images_of(model, n=5), layers=[1])
    (of_layer, *_), panels = found.plot().axes, found.plot("head_norms").axes
    torch.testing.assert_close(torch.as_tensor(of_layer.images[0].get_array()), found.layer_norms.mean((0, 1)))
    assert [panel.get_title(loc="left") for panel in panels[:3]] == [f"layer 1, head {i}" for i in range(3)]
    with pytest.raises(PrismaError, match="the nearest: layer_norms"):
        found.plot("layer_norm")


def test_heads_that_cancel_each_other_leave_little() -> None:
    """Two heads attend alike and write large opposite vectors, and a small remainder: 1e-4 of each."""
    model = model_of("base", torch.float32, n_heads=2, n_layers=1)
    with torch.no_grad():
        qkv, out = model.blocks[0].attn.qkv, model.blocks[0].attn.out
        for x in (*qkv.weight.view(3, 2, 6, 12), *qkv.bias.view(3, 2, 6)):
            x[1] = x[0]
        out.weight[:, 6:] = -out.weight[:, :6] * (1 + 1e-4)
    images = images_of(model, 2)
    found = norm_weighted_attention(model, images)
    exact = norm_weighted_attention(deepcopy(model).double(), images.double())
    assert found.layer_norms.max() < 1e-3 * found.head_norms.max()
    torch.testing.assert_close(found.layer_norms, exact.layer_norms.float(), rtol=5e-3, atol=0)
