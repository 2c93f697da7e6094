import numpy as np
import pytest
import torch

from prisma.headlines import HEADLINES
from prisma.train.objectives import CLASSIFICATION, OBJECTIVES
from prisma.train.objectives.base import Squares


def test_every_objective_is_in_the_table_under_its_name_and_has_a_headline() -> None:
    assert list(OBJECTIVES) == list(HEADLINES) and next(iter(OBJECTIVES)) == CLASSIFICATION.name
    for name, kind in OBJECTIVES.items():
        assert kind.name == name and HEADLINES[name] in kind.explained.lower() and "loss" in kind.explained.lower()


class Plain(Squares):
    name = "regression"


def test_r2_is_one_minus_the_errors_over_the_variance_and_adds_up_over_batches() -> None:
    random = np.random.RandomState(0)
    wanted, answer = random.randn(30, 5, 3) * (1, 10, 0.1) + (0, 7, -100), random.randn(30, 5, 3)
    rows, found = wanted.reshape(-1, 3), answer.reshape(-1, 3)
    errors = sum((a - b) ** 2 for a, b in zip(rows.flat, found.flat, strict=True))
    spread = sum(((rows[:, i] - np.mean(rows[:, i])) ** 2).sum() for i in range(3))
    squares, parts = Plain(), [slice(0, 7), slice(7, 30)]
    sums = sum(squares.sums(torch.from_numpy(answer[part]), torch.from_numpy(wanted[part])) for part in parts)
    assert isinstance(sums, torch.Tensor)
    loss, r2 = squares.measured(sums.tolist(), 30)
    assert loss == pytest.approx(errors / rows.size, rel=1e-12) and r2 == pytest.approx(1 - errors / spread, rel=1e-9)
    assert squares.loss(torch.from_numpy(answer), torch.from_numpy(wanted)).item() == pytest.approx(loss, rel=1e-12)


def test_right_answers_have_an_r2_of_1_the_mean_of_0_and_numbers_that_do_not_vary_of_0() -> None:
    squares, wanted = Plain(), torch.randn(40, 2, dtype=torch.float64) + 5
    for answer, expected in ((wanted, 1.0), (wanted.mean(0).expand(40, 2), 0.0)):
        assert squares.measured(squares.sums(answer, wanted).tolist(), 40)[1] == pytest.approx(expected, abs=1e-12)
    same = torch.full((40, 2), 0.1, dtype=torch.float64)
    assert squares.measured(squares.sums(same + 1, same).tolist(), 40) == (pytest.approx(1.0), 0.0)
