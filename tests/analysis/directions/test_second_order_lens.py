"""Second-order lens: what ablation takes away where nothing else changes, a slow computation, and planted texts."""

from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError, Zero
from prisma.analysis.directions.second_order_lens import SecondOrder, sparse_sum
from tests.variants import images_of, model_of


@torch.no_grad()
def test_direct_and_second_order_effects_are_all_of_a_neuron_where_later_parts_are_linear() -> None:
    """Without norms and MLPs after it, and with patterns that do not depend on it, ablation takes away just these."""
    model = model_of("norm_none").requires_grad_(False)
    model.blocks[1].mlp.out.weight.zero_()
    model.blocks[1].attn.qkv.weight.view(3, -1)[:2] = 0  # attention is uniform but for biases
    images, neuron = images_of(model, 3), 4
    effect = SecondOrder(model, images, 0, "logits").of(torch.tensor([neuron]))[0]
    logits, acts = prisma.record(model, images, "blocks.0.mlp.post")
    ablated = prisma.run(model, images, {"blocks.0.mlp.post": Zero().at(d_mlp=neuron)})
    written = acts["blocks.0.mlp.post"][:, :1, neuron] * model.blocks[0].mlp.out.weight[:, neuron]
    torch.testing.assert_close(logits - ablated, effect + written @ model.readout.head.weight.mT)


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "space"),
    [
        ("base", "logits"), ("base", "pooled"), ("pool_mean", "logits"), ("norm_pooled_mean", "pooled"),
        ("layer_scale", "logits"), ("rms", "logits"), ("registers", "logits"), ("parallel", "logits"),
        ("norm_res_post", "logits"),
    ],
)  # fmt: skip
def test_effects_are_the_slow_computation(variant: str, space: str) -> None:
    """One neuron at one token after the other, through each later head, with norms as divisions by their own sizes."""
    model = model_of(variant, n_layers=3).requires_grad_(False)
    c, images, neuron = model.config, images_of(model, 2), 2
    found = SecondOrder(model, images, 0, space, batch=1).of(torch.tensor([neuron]))[0]
    acts = prisma.record(model, images, "*")[1]
    read = [0] if c.pool == "class" else list(range(c.n_prefix, c.n_tokens))
    for image in range(2):
        total = torch.zeros(c.d_model).double()
        for layer in (1, 2):
            block = model.blocks[layer]
            for head in range(c.n_heads):
                for q in read:
                    at_q = torch.zeros(c.d_model).double()
                    for i in range(c.n_tokens):
                        x = acts["blocks.0.mlp.post"][image, i, neuron] * model.blocks[0].mlp.out.weight[:, neuron]
                        if c.norm == "res_post":
                            x = frozen(
                                model.blocks[0].ln2, x, model.blocks[0].mlp.write(acts["blocks.0.mlp.post"])[image, i]
                            )
                        x = model.blocks[0].scale2(x)
                        if c.norm == "pre":
                            x = frozen(block.ln1, x, acts[f"blocks.{layer}.resid_pre"][image, i])
                        x = x @ block.attn.W_V[head] @ block.attn.W_O[head]
                        if c.norm == "res_post":
                            x = frozen(block.ln1, x, block.attn.write(acts[f"blocks.{layer}.attn.z"])[image, q])
                        at_q += acts[f"blocks.{layer}.attn.pattern"][image, head, q, i] * block.scale1(x)
                    stream = acts["blocks.2.resid_post"][image]
                    size_of = stream[read].mean(0) if c.norm_pooled else stream[q]
                    total += frozen(model.readout.ln_final, at_q, size_of) / len(read)
        expected = total if space == "pooled" else total @ model.readout.head.weight.mT
        torch.testing.assert_close(found[image], expected)


def frozen(norm: Any, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The norm of a part of a vector, divided by the size of all of it."""
    if isinstance(norm, torch.nn.LayerNorm):
        x, whole = x - x.mean(), whole - whole.mean()
    return x / (whole.square().mean() + norm.eps).sqrt() * norm.weight


def test_a_planted_text_is_named() -> None:
    """A neuron writes a direction that a later head turns into the direction of class 3."""
    model = model_of("norm_none").requires_grad_(False)
    texts = torch.eye(5).double()
    with torch.no_grad():
        model.blocks[1].attn.W_V.zero_()
        model.blocks[1].attn.W_O.zero_()
        model.blocks[0].mlp.out.weight[:, 6] = torch.eye(12)[1].double()
        model.readout.head.weight.copy_(torch.eye(5, 12))
        model.blocks[1].attn.W_V[0, 1, 0], model.blocks[1].attn.W_O[0, 0, 3] = 1.0, 2.0
    found = prisma.second_order_lens(model, images_of(model, 8), texts, texts=1, names=list("abcde"), layers=[0])
    assert found.chosen[0, 6].item() == 3
    assert found.explained[0, 6] > 1 - 1e-9 and found.fit[0, 6] > 1 - 1e-9
    assert found.random_fit[0, 6] < 0.99
    assert ("d" in name for _, neuron, (name,) in found.neurons() if neuron == 6)


def test_a_sparse_sum_finds_its_parts() -> None:
    torch.manual_seed(1)
    texts = torch.nn.functional.normalize(torch.randn(40, 24).double(), dim=1)
    target = torch.nn.functional.normalize(2 * texts[[3, 9]] - 1.5 * texts[[17, 30]], dim=1)
    chosen, weights, fit = sparse_sum(target, texts, 2)
    assert [set(x) for x in chosen.tolist()] == [{3, 17}, {9, 30}] and fit.min() > 1 - 1e-12
    torch.testing.assert_close((weights[..., None] * texts[chosen]).sum(1), target)


def test_the_report_and_the_picture() -> None:
    model = model_of("base", n_layers=3).requires_grad_(False)
    found = prisma.second_order_lens(model, images_of(model, 5), texts=2)
    assert found.metadata["layers"] == [0, 1] and found.component.shape == (2, 10, 12)
    torch.testing.assert_close(found.component.norm(dim=-1), torch.ones(2, 10).double())
    assert found.report("abcde").startswith("layer ") and len(found.report().splitlines()) == 10
    assert found.plot().axes and found.plot("size").axes


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("attention_only", "d_mlp=0"), ("one_layer", "n_layers=1"), ("norm_post", "norm='post'"),
        ("sub_norms", "norm_z=True"), ("pool_attention", "pool='attention'"),
    ],
)  # fmt: skip
def test_other_forms_are_one_sentence(variant: str, found: str) -> None:
    model = model_of(variant)
    with pytest.raises(PrismaError, match=f"expected a model with MLPs, two layers or more, .*; found {found}"):
        prisma.second_order_lens(model, images_of(model, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": [1]}, "expected layers with later ones; found 1, the last"),
        ({"texts": 0}, "expected two images or more, and texts from 1 to 5; found 3 and 0"),
        ({"texts": 6}, "expected two images or more, and texts from 1 to 5; found 3 and 6"),
    ],
)
def test_bad_input_is_one_sentence(given: dict[str, Any], message: str) -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        prisma.second_order_lens(model, images_of(model, 3), **given)
