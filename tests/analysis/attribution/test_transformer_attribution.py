"""Transformer attribution: each rule against explicit sums, and what passes through whole models unchanged."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma import Logit, LogitDiff, PrismaError, ViT, record
from prisma.analysis.attribution.attribute import attribute
from prisma.analysis.attribution.games import TokenGame
from prisma.analysis.attribution.questions import Neuron
from prisma.analysis.attribution.transformer_attribution import RelevanceMode, propagated
from tests.planted_heads import planted
from tests.variants import images_of, model_of

VARIANTS = [
    "base", "norm_post", "norm_res_post", "rms", "clip", "siglip", "dino", "dino_rotary", "sub_norms", "parallel",
    "pool_attention_prefix", "pool_class_mean", "pool_distilled", "score_bias", "video", "gated_silu",
    "everything_post",
]  # fmt: skip
R = torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def passed(function: object, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Relevance R of the output -> of each input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with RelevanceMode():
        y = function(*leaves)  # type: ignore[operator]
    torch.testing.assert_close(y.detach(), function(*inputs))  # type: ignore[operator]
    return torch.autograd.grad(y, leaves, R)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def test_a_linear_map_divides_by_positive_products() -> None:
    x, weight = normal(3, 5).abs(), normal(4, 5)
    weight[:, 0], x[1:, 3] = 0.5, -x[1:, 3]  # every output has a positive product
    found = passed(lambda x: F.linear(x, weight, torch.ones(4).double()), x)[0]
    products = (x[:, None] * weight).clamp(min=0)  # [row, output, input]
    torch.testing.assert_close(found, (products / products.sum(-1, keepdim=True) * R[..., None]).sum(1))


def test_a_sum_divides_by_shares_and_keeps_the_proportion_of_the_sums() -> None:
    a, b = normal(3, 4), normal(3, 4) * 0.5 + 1
    of_a, of_b = passed(lambda a, b: a + b, a, b)
    for i in range(3):
        shares = [a[i] / (a[i] + b[i]) * R[i], b[i] / (a[i] + b[i]) * R[i]]
        sizes = [share.sum().abs() for share in shares]
        for found, share, size in zip((of_a, of_b), shares, sizes, strict=True):
            torch.testing.assert_close(found[i], share * (size / (sizes[0] + sizes[1]) * R[i].sum() / share.sum()))


def test_a_product_divides_by_shares_half_to_each_factor() -> None:
    a, b = normal(3, 5), normal(5, 4)
    of_a, of_b = passed(lambda a, b: a @ b, a, b)
    shares = a[:, :, None] * b / (a @ b)[:, None] * R[:, None] / 2  # [row, inner, column]
    torch.testing.assert_close(of_a, shares.sum(2))
    torch.testing.assert_close(of_b, shares.sum(0))
    of_a, of_b = passed(lambda a, b: a * b, normal(3, 4), normal(3, 4) + 1)
    torch.testing.assert_close(of_a, R / 2)
    torch.testing.assert_close(of_b, R / 2)


def test_softmax_norms_activations_and_scaling_pass_on_all() -> None:
    x = normal(3, 4)
    for function in (
        F.gelu,
        lambda x: x.softmax(-1),
        lambda x: F.layer_norm(x, (4,)),
        lambda x: 3 * x,
        lambda x: x * 0.1,
    ):
        torch.testing.assert_close(passed(function, x)[0], R)
    found = passed(lambda x: x.view(3, 4, 2).mean(2), normal(3, 8))[0].view(3, 4, 2)
    pairs = normal(3, 8).view(3, 4, 2)
    torch.testing.assert_close(found, pairs / pairs.sum(2, keepdim=True) * R[..., None])


def test_an_operation_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(PrismaError, match=r"operations with a rule of relevance; found torch.*exp"):
        passed(lambda x: x.exp(), normal(3, 4))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_model_passes_on_all_that_it_gets(variant: str) -> None:
    wide = {"d_model": 48, "d_mlp": 64, "d_head": 16}  # so that no output is without a positive product
    model = model_of(variant, **wide)
    images = images_of(model)
    game = TokenGame(model, images, torch.zeros_like(images), Logit([1, 2]))
    if variant in ("pool_attention_prefix", "siglip"):  # its query is no token, and takes its share
        assert propagated(game, torch.arange(2))[0].isfinite().all()
    else:
        found = propagated(game, torch.arange(2))[0].sum((1, 2))
        torch.testing.assert_close(found, torch.ones(2).double(), rtol=1e-5, atol=1e-5)
    map_BT = attribute(model, images, [1, 2], "transformer_attribution", batch=1).map
    assert map_BT.shape == (2, model.config.n_tokens) and (map_BT >= 0).all()


def test_the_map_is_rolled_out_from_gradients_and_relevances() -> None:
    model = model_of("base")
    images = images_of(model)
    game = TokenGame(model, images, torch.zeros_like(images), LogitDiff(0, 3))
    relevances = propagated(game, torch.arange(2))[1]
    logits, acts = record(model, images.requires_grad_(), ["*.pattern"])
    expected = torch.eye(10).double().repeat(2, 1, 1)
    for site, pattern in acts.items():
        slope = torch.autograd.grad(LogitDiff(0, 3)(logits).sum(), pattern, retain_graph=True)[0]
        heads = (slope * relevances[site]).clamp(min=0)
        expected = (torch.eye(10) + sum(heads[:, h] / 3 for h in range(3))) @ expected  # type: ignore[operator]
    ours = attribute(model, images.detach(), LogitDiff(0, 3), "transformer_attribution").map
    torch.testing.assert_close(ours, expected[:, 0])


def speaking() -> ViT:
    """A head gives half of the class token's attention to two patches each, and only the first has a value."""
    look = torch.eye(10)
    look[0] = torch.tensor([0, 0.5, 0, 0.5] + [0] * 6)
    model = planted({(0, 1): look}, image_size=3, n_layers=1)
    with torch.no_grad():
        attention = model.blocks[0].get_submodule("attn")
        attention.qkv.weight.view(3, 3, 10, 10)[2, 1, 0, 1] = 1.0
        attention.out.weight.view(10, 3, 10)[0, 1, 0] = 1.0
        model.readout.head.weight[1, 0] = 1.0
    return model


def test_only_the_patch_that_speaks_for_the_class_is_relevant() -> None:
    images = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    patches = attribute(speaking(), images, 1, "transformer_attribution").patches.flatten()
    assert patches[0] > 0 and not patches[1:].any()


def test_other_targets_are_refused() -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="a metric of the logits of a model with joint attention"):
        attribute(model, images_of(model), Neuron("blocks.0.mlp.post", 1), "transformer_attribution")
    with pytest.raises(PrismaError, match="a metric of the logits of a model with joint attention"):
        attribute(model_of("divided"), images_of(model_of("divided")), 1, "transformer_attribution")
