"""Class projection: each norm by hand, agreement at the last stage, contributions that add up, prompts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import prisma
from prisma import PrismaError, record
from prisma.analysis.class_space import class_projection, project
from prisma.analysis.class_space.class_projection import NORMS, ClassProjection, Projection
from prisma.pretrained.zero_shot import PromptHead
from tests.variants import WITH_CLASSES, images_of, model_of

LINEAR = ["base", "norm_none", "pool_mean", "pool_class_mean", "pool_distilled", "norm_pooled_mean", "rms",
          "norm_post", "no_norm_final", "no_head_bias", "registers"]  # fmt: skip


def stream(model: prisma.ViT) -> Tensor:
    site = f"blocks.{model.config.n_layers - 1}.resid_post"
    return record(model, images_of(model, 2), site)[1][site]


def with_prompts(projected: bool) -> prisma.ViT:
    model = model_of("base", n_classes=5)
    projection = torch.nn.Linear(12, 7).double() if projected else torch.nn.Identity()
    directions = F.normalize(torch.randn(5, 7 if projected else 12, dtype=torch.float64), dim=-1)
    model.readout.head = PromptHead(projection, directions, 3.0, 0.5)
    return model.requires_grad_(False)


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_final_is_the_readout_of_a_stream_of_copies(variant: str) -> None:
    model = model_of(variant)
    x = torch.randn(3, model.config.d_model, dtype=torch.float64)
    copies = x[:, None].expand(-1, model.config.n_tokens, -1)
    torch.testing.assert_close(project(model, x), model.readout(copies))
    torch.testing.assert_close(project(model, x.view(3, 1, 1, -1))[:, 0, 0], model.readout(copies))


def test_each_norm_by_hand() -> None:
    model = model_of("base").requires_grad_(False)
    norm, head = model.readout.ln_final, model.readout.head
    x, last = torch.randn(2, 4, 12, dtype=torch.float64)
    centred, sigma = x - x.mean(-1, keepdim=True), (last.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    constant = norm.bias @ head.weight.mT + head.bias
    frozen = (centred / sigma * norm.weight) @ head.weight.mT
    for bias in (False, True):
        torch.testing.assert_close(project(model, x, norm="frozen", last=last, bias=bias), frozen + bias * constant)
        torch.testing.assert_close(project(model, x, norm="none", bias=bias), x @ head.weight.mT + bias * head.bias)
        torch.testing.assert_close(project(model, x, bias=bias), norm(x) @ head.weight.mT + bias * head.bias)


@pytest.mark.parametrize("variant", LINEAR)
def test_final_frozen_and_folded_agree_at_the_last_stage(variant: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = model_of(variant, dtype).requires_grad_(False)
        x = stream(model)
        final = project(model, x)
        for norm in ("frozen", "folded"):
            torch.testing.assert_close(project(model, x, norm=norm), final, rtol=tolerance, atol=tolerance)
        pair = (project(model, x, norm=norm, bias=False) for norm in ("frozen", "folded"))
        torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("projected", [True, False])
def test_prompts_are_classes(projected: bool) -> None:
    model = with_prompts(projected)
    x, head = stream(model), model.readout.head
    final = project(model, x)
    torch.testing.assert_close(final[:, 0], model.readout(x))
    torch.testing.assert_close(project(model, x, bias=False), final - 0.5)
    for norm in ("frozen", "folded"):
        torch.testing.assert_close(project(model, x, norm=norm), final)
    torch.testing.assert_close(
        project(model, x, norm="none"), head.projection(x) @ head.directions.mT * 3.0 + 0.5, rtol=1e-6, atol=1e-6
    )


def test_frozen_contributions_of_all_parts_add_up_to_the_logits() -> None:
    model = model_of("layer_scale").requires_grad_(False)
    images, names = images_of(model, 2), ["attn_out", "mlp_out"]
    logits, acts = record(model, images, ["blocks.*.resid_*", *(f"blocks.*.{name}" for name in names)])
    last = acts["blocks.1.resid_post"]
    parts = [acts["blocks.0.resid_pre"], *(acts[f"blocks.{layer}.{name}"] for layer in range(2) for name in names)]
    total = sum(project(model, part, norm="frozen", bias=False, last=last) for part in parts)
    constant = project(model, torch.zeros(12, dtype=torch.float64), norm="none")
    constant = constant + model.readout.ln_final.bias @ model.readout.head.weight.mT
    torch.testing.assert_close((total + constant)[:, 0], logits)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("variant", ["base", "pool_distilled"])
def test_one_class_is_that_of_all(variant: str, norm: str) -> None:
    model = model_of(variant).requires_grad_(False)
    x, labels = stream(model), torch.tensor([3, 1])
    projection = Projection(model, norm)
    found = projection(x, 2 * x)
    expected = torch.stack([row[:, label] for row, label in zip(found, labels.tolist(), strict=True)])
    torch.testing.assert_close(projection.of_class(x, labels, 2 * x), expected)


@pytest.mark.parametrize("queries", ["all", "class", "patches"])
def test_every_layer_of_a_run_in_any_batches(queries: str) -> None:
    model = model_of("base")
    images = images_of(model, 3)
    chosen = {"all": slice(None), "class": slice(1), "patches": slice(1, None)}[queries]
    for site, norm in (("resid_mid", "final"), ("attn_out", "frozen"), ("mlp_out", "none")):
        found = class_projection(model, images, site=site, norm=norm, queries=queries, batch=2)
        acts = record(model, images, [f"blocks.*.{site}", "blocks.1.resid_post"])[1]
        last = acts["blocks.1.resid_post"]
        for layer in range(2):
            expected = project(model, acts[f"blocks.{layer}.{site}"], norm=norm, last=last)
            torch.testing.assert_close(found.logits[:, layer], expected[:, chosen])
        assert torch.equal(found.top(2)[..., 0], found.logits.argmax(-1))


def test_the_class_token_of_the_last_stage_has_the_logits() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    found = class_projection(model, images, queries="class")
    assert isinstance(found, ClassProjection)
    torch.testing.assert_close(found.logits[:, -1, 0], model(images))
    for queries, kinds in {"class": ["class"], "patches": ["patches"], "all": ["class", "patches"]}.items():
        own = class_projection(model, images, queries=queries)
        assert list(own.by_kind(own.logits.movedim(2, 3))) == kinds
    of_registers = class_projection(model_of("registers"), images, queries="registers")
    assert {kind: x.shape for kind, x in of_registers.by_kind(of_registers.logits.movedim(2, 3)).items()} == {
        "registers": (3, 2, 5)
    }


def test_vectors_of_another_precision_and_their_errors() -> None:
    model = model_of("base", torch.float32)
    x = torch.randn(3, 12, dtype=torch.float64)
    for norm in NORMS:
        assert torch.equal(project(model, x, norm=norm), project(model, x.float(), norm=norm))
        assert all(project(model, x[:0], norm=norm, bias=bias).shape == (0, 5) for bias in (True, False))
    with pytest.raises(PrismaError, match=r"expected x of floating-point numbers; found torch.int64"):
        project(model, x.long())


def test_what_it_refuses() -> None:
    model, x = model_of("base"), torch.ones(2, 12, dtype=torch.float64)
    images = images_of(model)
    calls = {
        "expected norm to be final, frozen, folded, none; found 'live'": lambda: project(model, x, norm="live"),
        r"expected x \[..., 12\]; found \[3\]": lambda: project(model, torch.ones(3)),
        r"expected last of the shape of x, \[2, 12\]; found \[12\]": lambda: project(model, x, last=x[0]),
        "expected a model with classes; found n_classes=0: give it prompts": lambda: project(model_of("no_head"), x),
        "a linear pooling for norm='none' and bias=True": lambda: project(model_of("siglip"), x, norm="none"),
        "a site along the residual stream.*'attn.q'": lambda: class_projection(model, images, site="attn.q"),
        "expected a model with registers tokens": lambda: class_projection(model, images, queries="registers"),
        "expected k from 1 to 5; found 6": lambda: class_projection(model, images).top(6),
    }
    for message, call in calls.items():
        with pytest.raises(PrismaError, match=message):
            call()
