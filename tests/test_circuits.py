"""Views of the weights: what they claim is what the forward does."""

from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError, circuits
from prisma.circuits import folded_out
from tests.variants import images_of, model_of


@pytest.mark.parametrize("layer", [0, 1])
def test_views_give_what_the_forward_computes(layer: int) -> None:
    model = model_of("no_qkv_bias")
    _, acts = prisma.record(model, images_of(model), f"blocks.{layer}.*")
    at = lambda site: acts[f"blocks.{layer}.{site}"]  # noqa: E731
    w = circuits.weights(model, layer)
    x = at("ln1.normalized")
    for site, matrix in (("q", "W_Q"), ("k", "W_K"), ("v", "W_V")):
        torch.testing.assert_close(torch.einsum("btm,hmd->bthd", x, w[matrix]), at(f"attn.{site}"))
    torch.testing.assert_close(torch.einsum("bthd,hdm->bthm", at("attn.z"), w["W_O"]), at("attn.result"))


@pytest.mark.parametrize("changes", [{}, {"layer_scale": True}, {"norm": "none"}, {"norm": "post"}])
def test_ov_and_qk_are_a_head_without_its_middle(changes: dict[str, Any]) -> None:
    model = model_of("no_qkv_bias", **changes)
    _, acts = prisma.record(model, images_of(model), "blocks.1.*")
    x = acts["blocks.1.ln1.normalized" if model.config.norm == "pre" else "blocks.1.resid_pre"]
    scores = torch.einsum("bqm,hmn,bkn->bhqk", x, circuits.qk(model, 1), x) / model.config.d_head**0.5
    torch.testing.assert_close(scores, acts["blocks.1.attn.scores"])
    result = torch.einsum("bhqk,bkm,hmn->bqhn", acts["blocks.1.attn.pattern"], x, circuits.ov(model, 1))
    bias = model.blocks[1].scale1(model.blocks[1].attn.out.bias)
    torch.testing.assert_close(result.sum(2) + bias, acts["blocks.1.attn_out"])


@pytest.mark.parametrize("variant", ["base", "no_qkv_bias", "divided"])
def test_weights_and_biases_are_the_whole_layer(variant: str) -> None:
    model = model_of(variant)
    _, acts = prisma.record(model, images_of(model), "blocks.1.*")
    for layer, kind in (place for place in circuits.attentions(model.config) if place[0] == 1):
        w, b = circuits.weights(model, layer, kind), circuits.biases(model, layer, kind)
        x = acts["blocks.1.ln1.normalized" if kind == "attn" else "blocks.1.ln_time.normalized"]
        for site in "qkv":
            expected = torch.einsum("btm,hmd->bthd", x, w[f"W_{site.upper()}"]) + b[f"b_{site.upper()}"]
            torch.testing.assert_close(expected, acts[f"blocks.1.{kind}.{site}"])
        out = torch.einsum("bthd,hdm->btm", acts[f"blocks.1.{kind}.z"], w["W_O"]) + b["b_O"]
        wrote = acts["blocks.1.attn_out" if kind == "attn" else "blocks.1.time_out"]
        torch.testing.assert_close(out, wrote[:, -out.shape[1] :])


@pytest.mark.parametrize("variant", ["base", "rms", "layer_scale", "norm_res_post", "sub_norms", "divided_everything"])
def test_folded_weights_act_on_the_stream_itself(variant: str) -> None:
    """Where a norm divides by a number s of a token, folded weights give s times what the layer computes."""
    model = model_of(variant)
    _, acts = prisma.record(model, images_of(model), "blocks.1.*")
    at = lambda site: acts[f"blocks.1.{site}"]  # noqa: E731
    for _, kind in (place for place in circuits.attentions(model.config) if place[0] == 1):
        w, b = circuits.stream_weights(model, 1, kind), circuits.biases(model, 1, kind)
        norm = model.blocks[1].get_submodule("ln1" if kind == "attn" else "ln_time")
        before = at("resid_pre" if kind == "time" or model.config.attention != "divided" else "resid_time")
        if model.config.norm == "pre":
            x = before[:, -at(f"{kind}.v").shape[1] :]
            bias = 0 if isinstance(norm, torch.nn.RMSNorm) else norm.bias
            raw = circuits.weights(model, 1, kind)
            read = torch.einsum("btm,hmd->bthd", x, w["W_V"]) / divisor(norm, x)[..., None]
            constant = b["b_V"] + (torch.einsum("m,hmd->hd", bias, raw["W_V"]) if isinstance(bias, torch.Tensor) else 0)
            torch.testing.assert_close(read + constant, at(f"{kind}.v"))
    z = at("attn.z")
    attn, block, scale = model.blocks[1].attn, model.blocks[1], model.blocks[1].scale1
    wrote = torch.einsum("bthd,hdm->btm", z, circuits.stream_weights(model, 1)["W_O"])
    if model.config.norm == "res_post":
        out = attn.out(z.flatten(2))
        bias = folded_out(block.ln1, attn.out.bias)
        expected = scale((wrote + bias) / divisor(block.ln1, out) + block.ln1.bias)
    elif attn.ln is not None:
        flat = z.flatten(2)
        expected = wrote / divisor(attn.ln, flat) + scale(attn.out(attn.ln.bias))
    else:
        expected = wrote + scale(attn.out.bias)
    torch.testing.assert_close(expected, at("attn_out"))


def divisor(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[batch, token, 1]: what the norm divides a token by."""
    centred = x - x.mean(-1, keepdim=True) if isinstance(norm, torch.nn.LayerNorm) else x
    return (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()  # type: ignore[operator]


def test_the_norms_of_the_stream() -> None:
    model = model_of("norm_post", n_layers=3)
    norms = lambda layer, branch: [id(norm) for norm in circuits.stream_norms(model, layer, branch)]  # noqa: E731
    every = [id(block.get_submodule(name)) for block in model.blocks for name in ("ln1", "ln2")]
    assert norms(0, "attn") == every
    assert norms(1, "mlp") == every[3:]
    assert norms(2, "mlp") == every[5:]
    assert not list(circuits.stream_norms(model_of("base"), 0, "attn"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: circuits.weights(m, 2), "from 0 to 1 and an attention of this model, attn; found 2 and 'attn'"),
        (lambda m: circuits.weights(m, 0, "time"), "found 0 and 'time'"),
        (lambda m: circuits.ov(m, 0, ln="live"), "expected ln to be none .*found 'live'"),
    ],
)
def test_what_does_not_exist_is_refused(call: Any, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        call(model_of("base"))


def test_a_qk_circuit_needs_scores_that_are_bilinear() -> None:
    with pytest.raises(PrismaError, match="qk_norm=False"):
        circuits.qk(model_of("qk_norm"), 0)


def test_shapes_and_shared_memory() -> None:
    model = model_of("base")
    heads, width, d_model = model.config.n_heads, model.config.d_head, model.config.d_model
    w = circuits.weights(model, 0)
    assert {name: tuple(x.shape) for name, x in w.items()} == {
        **dict.fromkeys(("W_Q", "W_K", "W_V"), (heads, d_model, width)),
        "W_O": (heads, width, d_model),
    }
    attention = model.blocks[0].attn
    storages = {attention.qkv.weight.untyped_storage().data_ptr(), attention.out.weight.untyped_storage().data_ptr()}
    assert {x.untyped_storage().data_ptr() for x in w.values()} == storages
