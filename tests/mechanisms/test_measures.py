"""The measure of each image, beside a loop over images."""

import pytest
import torch

from prisma.analysis.statistics import mean_interval, wilson_interval
from prisma.data import task
from prisma.mechanisms.measures import MEASURES, OF_OBJECTIVES, mean_with_ends
from prisma.recipes import RECIPES
from prisma.train.objectives import CLASSIFICATION, OBJECTIVES


def test_right_answers_are_one_and_ties_are_shared() -> None:
    logits = torch.tensor([[1.0, 2, 0], [3, 0, 0], [1, 1, 0]])
    metric = MEASURES["accuracy"].metric(CLASSIFICATION, torch.tensor([1, 1, 0]))
    assert metric(logits).tolist() == [1, 0, 0.5]


def test_the_loss_of_several_questions_is_that_of_each_image_alone() -> None:
    data = task("pairs")
    several = OBJECTIVES["several"].of(RECIPES["pairs"].model, RECIPES["pairs"].training, data)
    wanted = several.targets(data.splits["test"])[:5]
    logits = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    found = MEASURES["loss"].metric(several, wanted)(logits)
    assert found.mean() == pytest.approx(several.loss(logits, wanted).item(), abs=1e-6)
    assert found[3] == several.loss(logits[3:4], wanted[3:4])


def test_intervals_are_of_shares_or_of_means() -> None:
    values = torch.tensor([1.0, 1, 0, 1])
    mean, ends = mean_with_ends(values, "accuracy")
    assert mean == 0.75 and torch.equal(ends, wilson_interval(torch.tensor(0.75), torch.tensor(4.0)))
    assert torch.equal(mean_with_ends(values, "loss")[1], mean_interval(values))
    assert set(OF_OBJECTIVES.values()) == set(MEASURES)
