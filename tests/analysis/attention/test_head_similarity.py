"""Similarity of heads against its definitions, pair by pair, and on heads that are alike or have nothing in common."""

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError, ViT, ViTConfig
from prisma.analysis.attention.head_similarity import head_similarity
from prisma.data import task
from prisma.runs import record
from tests.planted_heads import planted, row_normal
from tests.variants import images_of, model_of

FORMS = ["base", "no_class_token", "registers", "video", "parallel", "sub_norms", "attention_only", "rotary"]


def per_head(site: str, variant: str) -> list[Tensor]:
    """Of every head: [image, ...], from an own recording."""
    model = model_of(variant)
    acts = record(model, images_of(model, n=3), [f"blocks.*.attn.{site}"])[1].stack(f"attn.{site}")
    axis = 1 if site == "pattern" else 2
    return [x.detach().select(axis, h) for x in acts for h in range(x.shape[axis])]


def cosine(a: Tensor, b: Tensor) -> float:
    return (torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())).item()


def jensen_shannon(a: Tensor, b: Tensor) -> float:
    """1 - JS / ln 2, from two Kullback-Leibler divergences for each query."""
    distances = []
    for p, q in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True):
        middle = (p + q) / 2
        distances.append(((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2)
    return 1 - torch.stack(distances).mean().item() / math.log(2)


def hsic(a: Tensor, b: Tensor) -> float:
    """Mean over images of the unbiased estimate, by U-centred matrices (Szekely & Rizzo 2014)."""
    return sum(_u_product(x @ x.T, y @ y.T) for x, y in zip(a, b, strict=True)) / len(a)


def _u_product(x: Tensor, y: Tensor) -> float:
    n, total = len(x), 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += _centred(x, i, j) * _centred(y, i, j)
    return total / (n * (n - 3))


def _centred(x: Tensor, i: int, j: int) -> float:
    n = len(x)
    x = x - torch.diag(x.diagonal())
    return (x[i, j] - x[i].sum() / (n - 2) - x[:, j].sum() / (n - 2) + x.sum() / ((n - 1) * (n - 2))).item()


def cka(a: Tensor, b: Tensor) -> float:
    return hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b))


@pytest.mark.parametrize(("measure", "slow"), [("cosine", cosine), ("jensen_shannon", jensen_shannon)])
@pytest.mark.parametrize("variant", FORMS)
def test_patterns_pair_by_pair(variant: str, measure: str, slow: object) -> None:
    assert callable(slow)
    model = model_of(variant)
    found = head_similarity(model, images_of(model, n=3), measure=measure, batch=2).similarity
    heads = per_head("pattern", variant)
    expected = torch.tensor([[slow(a, b) for b in heads] for a in heads], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", ["base", "sub_norms"])
def test_outputs_pair_by_pair(variant: str) -> None:
    model = model_of(variant, n_layers=1)
    images = images_of(model, n=2)
    _, acts = record(model, images, ["blocks.0.attn.result"])
    heads = [acts["blocks.0.attn.result"].detach()[:, :, h] for h in range(3)]
    expected = torch.tensor([[cka(a, b) for b in heads] for a in heads], dtype=torch.float64)
    found = head_similarity(model, images, measure="cka").similarity
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("measure", ["cosine", "jensen_shannon", "cka"])
def test_of_divided_attention_space_and_time_have_heads(measure: str) -> None:
    model = model_of("divided")
    images = images_of(model)
    results = [head_similarity(model, images, measure=measure, attention=name) for name in ("attn", "time")]
    for found in results:
        assert found.similarity.shape == (6, 6)
        torch.testing.assert_close(found.similarity.diagonal(), torch.ones(6, dtype=torch.float64))
    assert not torch.allclose(results[0].similarity, results[1].similarity)


def test_the_same_pattern_is_one_and_nothing_in_common_is_zero() -> None:
    back, forth = row_normal(torch.eye(9).roll(1, 0)), row_normal(torch.eye(9).roll(1, 1))
    heads = {(0, 0): back, (0, 1): forth, (1, 2): back}
    model = planted(heads, image_size=3, class_token=False, pool="mean")
    images = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    for measure in ("cosine", "jensen_shannon"):
        found = head_similarity(model, images, measure=measure)
        torch.testing.assert_close(found.similarity[0, [0, 1, 5]], torch.tensor([1, 0, 1], dtype=torch.float64))
        assert found.metadata["heads"] == 3
        panel = found.plot().axes[0]
        assert panel.get_xticks().tolist() == [1, 4]  # the middle of each layer's heads
        assert [tick.get_text() for tick in panel.get_yticklabels()] == ["0", "1"]
        assert found.plot("products").axes[0].get_xlabel() == "other_head"


def test_cka_is_one_for_outputs_that_differ_by_a_rotation_and_a_factor() -> None:
    model = model_of("norm_none", n_layers=1)
    attention = model.blocks[0].get_submodule("attn")
    turn, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))
    with torch.no_grad():
        for rows in attention.qkv.weight.view(3, 3, 4, 12), attention.qkv.bias.view(3, 3, 4):
            rows[:, 1] = rows[:, 0]
        attention.out.weight.view(12, 3, 4)[:, 1] = 5 * turn @ attention.out.weight.view(12, 3, 4)[:, 0]
    found = head_similarity(model, images_of(model), measure="cka").similarity
    assert found[0, 1].item() == pytest.approx(1, abs=1e-10)
    assert found[0, 2].item() < 0.999


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    with pytest.raises(PrismaError, match="expected measure to be one of jensen_shannon, cosine, cka; found 'js'"):
        head_similarity(model, images, measure="js")
    with pytest.raises(PrismaError, match="expected attention to be attn or time; found 'pool'"):
        head_similarity(model_of("siglip"), images, attention="pool")
    small = model_of("base", image_size=2)
    with pytest.raises(PrismaError, match="at least 4 tokens; found 2"):
        head_similarity(small, images_of(small), measure="cka")


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_cka_in_float32_is_that_of_float64(size: float) -> None:
    """Whatever the heads write at all tokens alike, and with few tokens: CKA is blind to it, and so is rounding."""
    torch.manual_seed(0)
    model = ViT(ViTConfig(image_size=8, patch_size=2, n_layers=1, d_model=12, n_heads=3, d_mlp=8, n_classes=3)).eval()
    for parameter in (model.embed.patch.weight, model.blocks[0].attn.qkv.weight):
        parameter.data *= 3
    model.blocks[0].attn.qkv.bias.data[24:] = size * torch.randn(12)
    images = images_of(model, 1)
    found = head_similarity(model, images, measure="cka")
    exact = head_similarity(deepcopy(model).double(), images.double(), measure="cka")
    assert found.similarity.isfinite().all() and (found.products.diagonal(dim1=1, dim2=2) > 0).all()
    torch.testing.assert_close(found.similarity.diagonal(), torch.ones(3))
    error = (found.similarity - exact.similarity).abs().max().item()
    assert error < 1e-6 * max(size, 1)  # z itself is rounded to about 1e-7 of the bias
    z = record(model, images, "blocks.0.attn.z")[1]["blocks.0.attn.z"].detach().double()
    out = model.blocks[0].attn.W_O.detach().double()
    written = [z[:, :, h] @ out[h] for h in range(3)]
    written = [x - x.mean(1, keepdim=True) for x in written]
    slow = torch.tensor([[cka(a, b) for b in written] for a in written])
    torch.testing.assert_close(found.similarity, slow, rtol=0, atol=1e-6)  # of the same z, with all digits


def test_one_image_of_five_tokens_has_a_cka() -> None:
    model = prisma.load("mice/circle").model
    images = task("circle").inputs("test", 1)[0]
    found = head_similarity(model, images, measure="cka").similarity
    exact = head_similarity(deepcopy(model).double(), images.double(), measure="cka").similarity
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.diagonal(), torch.ones(len(found)))


def test_a_head_that_writes_the_same_everywhere_has_nothing_in_common() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        model = model_of("base", dtype)
        qkv = model.blocks[0].attn.qkv
        qkv.weight.data[24:28] = 0  # W_V of head 0: its z is the bias, at every token, but for rounding
        found = head_similarity(model, images_of(model, 2), measure="cka").similarity
        assert (found[0] == 0).all() and (found[:, 0] == 0).all()
        assert (found.diagonal()[1:] - 1).abs().max() < 1e-6
