"""AttnLRP and CP-LRP: each rule against its formula, a layer against explicit sums, and what must be conserved."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma import Logit, LogitDiff, PrismaError, Similarity, ViT, record
from prisma.analysis.attribution.attribute import attribute, attribute_network
from prisma.analysis.attribution.games import TokenGame
from prisma.analysis.attribution.lrp import (
    FrozenNorms,
    RuleTap,
    attn_lrp,
    cp_lrp,
    gamma_lrp,
    halved,
    relevance_of_stream,
    shared,
)
from prisma.analysis.attribution.questions import Neuron
from prisma.pretrained.zero_shot import zero_shot
from tests.variants import ANALYSED, images_of, model_of

FEW = [
    "base",
    "norm_post",
    "pool_attention_gated",
    "rms",
    "sub_norms",
    "rotary_head_table",
    "divided_everything",
    "clip",
]


def game_of(model: ViT, target: object = None) -> TokenGame:
    images = images_of(model)
    return TokenGame(model, images, torch.zeros_like(images), Logit(1) if target is None else target)  # type: ignore[arg-type]


def test_values_stay_and_gradients_change() -> None:
    x, z = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.equal(halved(x), x)
    torch.testing.assert_close(torch.autograd.grad(halved(x).sum(), x)[0], torch.full((5,), 0.5).double())
    y = F.gelu(x) * z
    assert torch.equal(shared(y, [x, z]), y)
    for one in (x, z):  # relevance 1 to each output: half to each input
        torch.testing.assert_close(one * torch.autograd.grad(shared(y, [x, z]).sum(), one)[0], y / 2)
    assert torch.autograd.grad(shared(x.detach() * 0, [x * 0]).sum(), x)[0].abs().max() == 0


def test_norms_have_the_same_value_and_a_constant_scale() -> None:
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 7, dtype=torch.float64)
    for norm, args in ((F.layer_norm, (weight, bias, 1e-2)), (F.rms_norm, (weight, 1e-2))):
        plain = norm(x, (7,), *args)
        if norm is F.rms_norm:
            args = (weight, None, 1e-2)
            frozen = _frozen(norm, x, weight)
        else:
            with FrozenNorms():
                frozen = norm(x, (7,), *args)
        torch.testing.assert_close(frozen, plain)
        kept = (bias if norm is F.layer_norm else 0) + torch.zeros(3, 7).double()
        relevance = (x * torch.autograd.grad(frozen.sum(), x)[0]).sum()
        torch.testing.assert_close(relevance, (plain - kept).sum())


def _frozen(norm: object, x: Tensor, weight: Tensor) -> Tensor:
    with FrozenNorms():
        return norm(x, (7,), weight, 1e-2)  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize("variant", [v for v in ANALYSED if v != "no_head" and v != "no_head_class_mean"])
def test_without_biases_cp_lrp_conserves_the_target(variant: str) -> None:
    """Whatever the form: linear maps, activations, norms and values divide all that they get."""
    model = model_of(variant)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and "attn.bias" not in name:
                parameter.zero_()
    found, value = cp_lrp(game_of(model))
    torch.testing.assert_close(found.sum(1), value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", FEW)
def test_what_does_not_add_up_is_what_biases_keep(variant: str) -> None:
    model = model_of(variant).requires_grad_()
    game = game_of(model, LogitDiff(0, 2))
    found, value = cp_lrp(game)
    kept = torch.zeros(2, dtype=torch.float64)
    for image in range(2):
        x = model.embed(game.images[image : image + 1]).detach()
        kept[image] = _kept_by_biases(model, game, x)
    torch.testing.assert_close(found.sum(1) + kept, value)


def _kept_by_biases(model: ViT, game: TokenGame, x: Tensor) -> Tensor:
    with FrozenNorms():
        values = LogitDiff(0, 2)(model.readout(model.encode(x, tap=RuleTap(False)), RuleTap(False)))
    names = [name for name, _ in model.named_parameters() if name.endswith((".bias", "attention_pool.query"))]
    biases = [model.get_parameter(n) for n in names if not n.startswith("embed") and "attn.bias" not in n]
    gradients = torch.autograd.grad(values.sum(), biases, allow_unused=True)
    kept = [(b * g).sum() for b, g in zip(biases, gradients, strict=True) if g is not None]
    return torch.stack(kept).sum().detach()


def test_a_layer_of_attention_divides_as_the_formulas_say() -> None:
    """AttnLRP on one attention-only layer without norms, by explicit sums over all tokens and features."""
    model = model_of("attention_only", norm="none", n_layers=1, qkv_bias=False)
    game = game_of(model)
    image, attn = game.images[:1], model.blocks[0].get_submodule("attn")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("readout.head.bias", "blocks.0.attn.out.bias"):
                parameter.zero_()
        _, acts = record(model, image, ["blocks.0.*"])
        x, q, k, v, s = (acts[f"blocks.0.{n}"][0] for n in ("resid_pre", "attn.q", "attn.k", "attn.v", "attn.pattern"))
        t, heads, d = q.shape
        w_out = model.readout.head.weight[1]  # type: ignore[union-attr]
        relevance = torch.zeros_like(x)
        relevance[0] = x[0] * w_out  # the class token's own stream
        r_z = acts["blocks.0.attn.z"][0, 0] * torch.einsum("m,hdm->hd", w_out, attn.W_O)  # type: ignore[arg-type]
        for h in range(heads):
            r_s, r_v = torch.zeros(t).double(), torch.zeros(t, d).double()
            z = s[h, 0] @ v[:, h]
            for j, f in product(range(t), range(d)):
                share = s[h, 0, j] * v[j, h, f] / z[f] * r_z[h, f]
                r_s[j] += share / 2
                r_v[j, f] += share / 2
            scores = q[0, h] @ k[:, h].T * d**-0.5
            r_scores = scores * (r_s - s[h, 0] * r_s.sum())
            for j, f in product(range(t), range(d)):
                share = q[0, h, f] * k[j, h, f] * d**-0.5 / scores[j] * r_scores[j]
                relevance[0] += x[0] * attn.W_Q[h][:, f] / q[0, h, f] * share / 2  # type: ignore[index]
                relevance[j] += x[j] * attn.W_K[h][:, f] / k[j, h, f] * share / 2  # type: ignore[index]
                relevance[j] += x[j] * attn.W_V[h][:, f] / v[j, h, f] * r_v[j, f]  # type: ignore[index]
    found = relevance_of_stream(game, torch.tensor([0]), softmax=True)
    torch.testing.assert_close(found[0], relevance)
    torch.testing.assert_close(attn_lrp(game)[0][0], relevance.sum(-1))


def test_the_gamma_rule_divides_by_products_of_the_outputs_sign() -> None:
    drawn = torch.Generator().manual_seed(0)
    x, weight, bias, slope = (torch.randn(*s, generator=drawn).double() for s in ((3, 5), (4, 5), (4,), (3, 4)))
    x.requires_grad_()
    with FrozenNorms(0.5):
        y = F.linear(x, weight, bias)
    torch.testing.assert_close(y, F.linear(x, weight, bias))
    found = x * torch.autograd.grad(y, x, slope)[0]
    expected = torch.zeros(3, 5).double()
    for row, output in product(range(3), range(4)):
        parts = torch.cat([x[row] * weight[output], bias[output, None]]).detach()
        parts = torch.where(parts.sign() == y[row, output].sign(), 1.5 * parts, parts)
        expected[row] += parts[:5] / parts.sum() * (slope * y)[row, output].detach()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("variant", ["base", "norm_post", "rms", "gated_silu", "layer_scale", "pool_mean", "registers"])
def test_without_biases_gamma_lrp_conserves_the_target(variant: str) -> None:
    model = model_of(variant)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and "attn.bias" not in name:
                parameter.zero_()
    found, value = gamma_lrp(game_of(model))
    torch.testing.assert_close(found.sum(1), value, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found, cp_lrp(game_of(model))[0], rtol=1e-3)


class Directions:
    """A text tower that knows three prompts."""

    logit_scale, logit_bias = 2.0, 0.0

    def __init__(self, found: Tensor) -> None:
        self.found = found

    def __call__(self, prompts: list[str]) -> Tensor:
        return self.found


@pytest.mark.parametrize("prompts", [True, False])
def test_a_prompt_of_a_clip_is_divided_whole(prompts: bool) -> None:
    """A cosine does not change with the length of its vector, so its plain gradient times the input is zero."""
    model = model_of("no_head")
    images, width = images_of(model), model(images_of(model)).shape[1]
    directions = F.normalize(torch.randn(3, width, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    target: Any = Similarity(directions[1])
    if prompts:
        model, target = zero_shot(model, Directions(directions), ["a", "b", "c"]), Logit(1)  # type: ignore[arg-type]
        rolled = attribute(model, images, 1, "transformer_attribution").map
        assert rolled.isfinite().all() and rolled.max() > 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
    game = TokenGame(model, images, torch.zeros_like(images), target)
    found, value = cp_lrp(game)
    assert value.abs().min() > 0.01
    torch.testing.assert_close(found.sum(1), value, rtol=1e-6, atol=1e-6)


def test_a_neuron_can_be_explained_and_a_cnn_cannot() -> None:
    model = model_of("base")
    images = images_of(model)
    neuron = Neuron("blocks.0.mlp.pre", 3)
    found = attribute(model, images, neuron, "attn_lrp")
    torch.testing.assert_close(found.value, record(model, images, neuron.site)[1][neuron.site][:, 0, 3])
    assert found.map.abs().max() > 0 and found.delta.isfinite().all()
    with pytest.raises(PrismaError, match="inside of which this method looks; found a network"):
        attribute_network(torch.nn.Flatten(), images, 1, "cp_lrp", patch=2)
