"""Metrics: one number per image."""

import torch

from prisma import LogitDiff, Probability

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])


def test_logit_difference() -> None:
    assert LogitDiff(2, 0)(LOGITS).tolist() == [3.0, 0.0]


def test_probability() -> None:
    e = LOGITS.exp()
    torch.testing.assert_close(Probability(1)(LOGITS), e[:, 1] / e.sum(1))


def test_metrics_are_values() -> None:
    assert LogitDiff(2, 0) == LogitDiff(2, 0)
    assert len({LogitDiff(2, 0), LogitDiff(2, 0), LogitDiff(0, 2), Probability(1)}) == 3
