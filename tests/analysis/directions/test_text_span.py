"""TextSpan: planted texts are named in their order, and what is left is what the formula leaves."""

from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.analysis.directions.head_contributions import head_contributions
from prisma.analysis.directions.text_span import _span
from tests.analysis.directions.test_texts import clip_of
from tests.variants import images_of, model_of


def test_planted_directions_are_found_in_the_order_of_their_variance() -> None:
    torch.manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(30, 16).double(), dim=1)
    strengths = torch.randn(200, 2).double() * torch.tensor([1.0, 3.0])
    span = _span(strengths @ texts[[7, 21]] + 5, texts, 4)
    assert span.chosen[:2].tolist() == [21, 7] and span.chosen[2:].tolist() == [-1, -1]
    assert 0.5 < span.explained[0] < 1 and span.explained[1] > 1 - 1e-12
    assert span.size == pytest.approx((strengths @ texts[[7, 21]]).var(0, correction=0).sum().sqrt().item())


def slow_span(c: torch.Tensor, texts: torch.Tensor, steps: int) -> tuple[list[int], list[float]]:
    """Each step in words: the projection onto what is left of the texts, image by image."""
    left, chosen, shares = c - c.mean(0), [], []
    whole = left.square().sum()
    _, size, v = torch.linalg.svd(left, full_matrices=False)
    v = v[size > 1e-9 * size[0]]
    rows = [sum(((t @ d) * d for d in v), torch.zeros_like(t)) for t in texts]
    for _ in range(steps):
        spread = [sum(float(x @ r) ** 2 for x in left) for r in rows]
        best = rows[spread.index(max(spread))]
        chosen.append(spread.index(max(spread)))
        left = torch.stack([x - (x @ best) / (best @ best) * best for x in left])
        rows = [r - (r @ best) / (best @ best) * best for r in rows]
        shares.append(float(1 - left.square().sum() / whole))
    return chosen, shares


def test_every_head_is_the_slow_computation() -> None:
    model = model_of("base").requires_grad_(False)
    images, texts = images_of(model, 9), torch.randn(8, 5, generator=torch.Generator().manual_seed(1)).double()
    found = prisma.text_span(model, images, texts, steps=3, batch=4)
    contributions, output = head_contributions(model, images, "logits")
    unit = torch.nn.functional.normalize(texts, dim=1)
    for layer in range(2):
        for head in range(3):
            chosen, shares = slow_span(contributions[:, layer, head], unit, 3)
            assert found.chosen[layer, head].tolist() == chosen
            torch.testing.assert_close(found.explained[layer, head], torch.tensor(shares).double())
    heads = contributions.sum((1, 2))
    ablated = output - heads + heads.mean(0)
    torch.testing.assert_close(found.similarity[:, 0], torch.cosine_similarity(ablated, output, dim=1))
    assert found.agreement is None and found.similarity[:, -1].mean() > found.similarity[:, 0].mean()


def test_the_models_own_classes_and_prompts_have_answers() -> None:
    for model, steps in ((model_of("base").requires_grad_(False), 5), (clip_of(), 4)):
        found = prisma.text_span(model, images_of(model, 6), steps=steps)
        assert found.agreement is not None and found.agreement.shape == (6, steps + 1)
        assert (found.explained.diff(dim=-1) > -1e-12).all()


def test_a_few_layers_the_report_and_the_picture() -> None:
    model = model_of("base").requires_grad_(False)
    found = prisma.text_span(model, images_of(model, 6), layers=[1], steps=2)
    assert found.explained.shape == (1, 3, 2)
    first = next(iter(found.heads().items()))
    assert first[0][0] == 1 and len(first[1]) == 2
    assert f"layer 1, head {first[0][1]}: " in found.report().splitlines()[0]
    names = "abcde"
    assert found.report(names).splitlines()[0].split(": ")[1][0] in names
    assert found.plot().axes and found.plot("size").axes


def test_a_head_that_writes_nothing_has_no_name() -> None:
    model = model_of("base").requires_grad_(False)
    model.blocks[1].attn.out.weight.zero_()
    found = prisma.text_span(model, images_of(model, 4), steps=2)
    assert found.explained[1].isnan().all() and (found.chosen[1] == -1).all() and found.size[1].max() == 0
    assert found.heads()[1, 0] == []


def test_a_head_that_writes_the_same_for_all_images_has_no_name_for_its_rounding() -> None:
    texts = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    noise = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)).double()
    span = _span(3 + 1e-8 * noise, texts, 2)
    assert span.explained.isnan().all() and span.chosen.tolist() == [-1, -1] and span.size == 0
    assert not span.lost.any() and _span(3 + 1e-5 * noise, texts, 2).explained[0] > 0


@pytest.mark.parametrize("changed", [{"steps": 0}, {"steps": 6}, {"controls": 0}])
def test_bad_input_is_one_sentence(changed: dict[str, Any]) -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected two images or more, from 1 to 5 steps, and one set of random"):
        prisma.text_span(model, images_of(model, 3), **changed)
    with pytest.raises(PrismaError, match="found 1, 5 and 3"):
        prisma.text_span(model, images_of(model, 1))
