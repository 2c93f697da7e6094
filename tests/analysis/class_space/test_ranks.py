"""Ranks of a class: loops over classes, means over all orders of those that tie."""

from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma import PrismaError
from prisma.analysis.class_space.ranks import (
    by_chance,
    expect_labels,
    first_share,
    rank_and_ties,
    reciprocal_rank,
    score_of,
)
from tests.variants import images_of, model_of


@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.data())
def test_figures_are_means_over_all_orders_of_ties(logits: list[int], data: st.DataObject) -> None:
    label, n = data.draw(st.integers(0, len(logits) - 1)), len(logits)
    rank, tied = rank_and_ties(torch.tensor(logits).double()[None, None], torch.tensor([label]))
    orders = [order for order in permutations(range(n)) if all(logits[a] >= logits[b] for a, b in pairwise(order))]
    places = torch.tensor([order.index(label) for order in orders]).double()
    assert rank.item() == pytest.approx(places.mean().item())
    assert first_share(rank, tied).item() == pytest.approx((places == 0).double().mean().item())
    assert score_of(rank, n).item() == pytest.approx((1 - places / n).mean().item())
    assert reciprocal_rank(rank, tied, n).item() == pytest.approx((1 / (1 + places)).mean().item())


@given(st.permutations(range(6)))
def test_the_numbers_of_classes_do_not_matter(order: list[int]) -> None:
    logits, labels = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 0, 2])
    moved = torch.tensor([order.index(label) for label in labels.tolist()])
    for found, expected in zip(rank_and_ties(logits[..., order], moved), rank_and_ties(logits, labels), strict=True):
        assert torch.equal(found, expected)


def test_chance_is_the_mean_over_all_ranks() -> None:
    ranks = torch.arange(40.0)
    found = {"rate": first_share(ranks), "score": score_of(ranks, 40), "mrr": reciprocal_rank(ranks, None, 40)}
    for name, expected in by_chance(40).items():
        assert found[name].mean().item() == pytest.approx(expected)


def test_a_token_without_a_rank_has_no_share() -> None:
    rank, tied = torch.tensor([torch.nan, 0.0, 2.5]), torch.tensor([torch.nan, 1, 2])
    for found in (first_share(rank), score_of(rank, 4), reciprocal_rank(rank, tied, 4)):
        assert found.isnan().tolist() == [True, False, False]
    assert reciprocal_rank(rank, tied, 4)[1:].tolist() == pytest.approx([1, (1 / 3 + 1 / 4) / 2])


def test_labels_that_are_refused() -> None:
    model = model_of("base")
    images, labels = images_of(model), torch.tensor([0, 4])
    assert expect_labels(model, images, labels.to(torch.uint8)).dtype == torch.int64
    wrong = {
        r"a label for each of 2 images; found \[1\]": labels[:1],
        "labels as whole numbers; found torch.float32": labels.float(),
        "a class from 0 to 4; found 5": labels + 1,
        "a class from 0 to 4; found -1": labels - 1,
    }
    for message, some in wrong.items():
        with pytest.raises(PrismaError, match=f"expected {message}"):
            expect_labels(model, images, some)
    with pytest.raises(PrismaError, match="at least one image"):
        expect_labels(model, images[:0], labels[:0])
    with pytest.raises(PrismaError, match="two classes or more, for ranks among them; found n_classes=1"):
        expect_labels(model_of("base", n_classes=1), images, 0 * labels)
    with pytest.raises(PrismaError, match="n_classes=0: give it prompts"):
        expect_labels(model_of("no_head"), images, labels)
