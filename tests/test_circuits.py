"""Views of the weights: what they claim is what the forward does."""

from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError, circuits
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
