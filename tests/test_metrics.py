"""Metrics: one number per image."""

import pytest
import torch

from prisma import LogitDiff, PrismaError, Probability

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])


def test_logit_difference() -> None:
    assert LogitDiff(2, 0)(LOGITS).tolist() == [3.0, 0.0]


def test_probability() -> None:
    e = LOGITS.exp()
    torch.testing.assert_close(Probability(1)(LOGITS), e[:, 1] / e.sum(1))


def test_metrics_are_values() -> None:
    assert LogitDiff(2, 0) == LogitDiff(2, 0)
    assert len({LogitDiff(2, 0), LogitDiff(2, 0), LogitDiff(0, 2), Probability(1)}) == 3


def test_a_class_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(PrismaError, match="expected a class from 0 to 2, found 3"):
        LogitDiff(0, 3)(LOGITS)
    with pytest.raises(PrismaError, match="found -1"):
        Probability(-1)(LOGITS)
