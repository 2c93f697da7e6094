"""The weights of all layers, by TransformerLens's names, compute what the model computes."""

import pytest
import torch

import prisma
from tests.variants import images_of, model_of, tower_of


@pytest.mark.parametrize("variant", ["base", "wide_heads", "no_qkv_bias", "gated_silu"])
@torch.no_grad()
def test_queries_keys_values_and_outputs_follow_from_the_weights(variant: str) -> None:
    model = model_of(variant)
    c = model.config
    assert model.W_Q.shape == model.W_K.shape == model.W_V.shape == (c.n_layers, c.n_heads, c.d_model, c.d_head)
    assert model.W_O.shape == (c.n_layers, c.n_heads, c.d_head, c.d_model)
    assert model.W_in.shape == (c.n_layers, c.d_model, c.d_mlp) and model.W_out.shape == (
        c.n_layers,
        c.d_mlp,
        c.d_model,
    )
    bias = model.blocks[1].attn.qkv.bias
    q_bias, k_bias, v_bias = (
        torch.zeros(3, c.n_heads, c.d_head).double() if bias is None else bias.view(3, c.n_heads, -1)
    )
    _, acts = prisma.record(model, images_of(model), "blocks.1.*")
    read = acts["blocks.1.ln1.normalized"]
    for name, weight, offset in (("q", model.W_Q, q_bias), ("k", model.W_K, k_bias), ("v", model.W_V, v_bias)):
        expected = torch.einsum("btm,hmd->bthd", read, weight[1]) + offset
        torch.testing.assert_close(acts[f"blocks.1.attn.{name}"], expected, rtol=0, atol=1e-12)
    written = torch.einsum("bthd,hdm->bthm", acts["blocks.1.attn.z"], model.W_O[1])
    torch.testing.assert_close(acts["blocks.1.attn.result"], written, rtol=0, atol=1e-12)
    written = acts["blocks.1.mlp.post"] @ model.W_out[1] + model.blocks[1].mlp.out.bias
    torch.testing.assert_close(acts["blocks.1.mlp_out"], written, rtol=0, atol=1e-12)
    inner = "pre_linear" if c.gated_mlp else "pre"
    expected = acts["blocks.1.ln2.normalized"] @ model.W_in[1] + getattr(model.blocks[1].mlp, inner).bias
    torch.testing.assert_close(acts[f"blocks.1.mlp.{inner}"], expected, rtol=0, atol=1e-12)


def test_weights_are_copies_that_gradients_pass_through() -> None:
    model, tower = model_of("base"), tower_of("base")
    with pytest.raises(AttributeError):
        model.W_Q = model.W_K  # type: ignore[misc]
    before = model.W_Q.detach().clone()
    with torch.no_grad():
        model.W_Q.zero_()
    assert torch.equal(model.W_Q, before)
    model.requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.W_O[1].sum(), model.blocks[1].attn.out.weight)
    assert (gradient == 1).all()
    assert tower.W_Q.shape[0] == tower.config.n_layers


def test_a_model_without_layers_or_mlps_has_empty_weights() -> None:
    bare, attention_only = model_of("no_layers"), model_of("attention_only")
    assert bare.W_Q.shape == (0, 3, 12, 4) and bare.W_O.shape == (0, 3, 4, 12) and bare.W_in.shape == (0, 12, 10)
    assert attention_only.W_in.shape == (2, 12, 0) and attention_only.W_out.shape == (2, 0, 12)
