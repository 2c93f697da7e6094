"""Rank correlations along the path of an image through a network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from prisma.features.paths import path_check, ranks, scores
from prisma.features.subjects import subject_of
from tests.variants import model_of


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=20))
def test_ranks_are_those_of_scipy_with_ties(numbers: list[int]) -> None:
    assert ranks(torch.tensor([numbers]).float())[0].tolist() == rankdata(numbers).tolist()


def test_the_check_is_the_mean_of_spearmans_correlations() -> None:
    torch.manual_seed(0)
    subject = subject_of(model_of("base", torch.float32))
    optima, tops, others = (
        torch.rand(2, *subject.shape),
        torch.rand(2, 3, *subject.shape),
        torch.rand(4, *subject.shape),
    )
    found = path_check(subject, optima, tops, others)

    def at(pixels: torch.Tensor, layer: int) -> torch.Tensor:
        return subject.read(pixels, subject.depth)[subject.depth[layer]].flatten(1).detach()

    def mean(a: torch.Tensor, b: torch.Tensor) -> float:
        pairs = [spearmanr(x, y).statistic for i, x in enumerate(a) for j, y in enumerate(b) if a is not b or i != j]
        return sum(pairs) / len(pairs)

    for i in range(2):
        for layer in range(2):
            top = at(tops[i], layer)
            assert found["path"][i, layer].item() == pytest.approx(mean(at(optima[i : i + 1], layer), top), abs=1e-6)
            assert found["natural"][i, layer].item() == pytest.approx(mean(top, top), abs=1e-6)
            assert found["other"][i, layer].item() == pytest.approx(mean(at(others, layer), top), abs=1e-6)


def test_the_top_image_itself_is_on_its_path_and_one_has_no_company() -> None:
    subject = subject_of(model_of("base", torch.float32))
    picture = torch.rand(1, *subject.shape)
    found = path_check(subject, picture, [picture], picture)
    assert torch.allclose(found["path"], torch.ones(1, 2)) and found["natural"].isnan().all()
    assert scores(torch.ones(1, 5)).tolist() == [[0.0] * 5]
