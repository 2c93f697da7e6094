import pytest
import torch

from prisma.editing.value import optimal_value
from prisma.errors import NotFiniteError, PrismaError


def test_the_penalty_and_the_loss_meet_where_their_gradients_cancel() -> None:
    start, goal = torch.tensor([3.0, 4.0]), torch.tensor([1.0, -2.0])
    found = optimal_value(
        start, lambda d: (d - goal).square().sum(), steps=300, lr=0.02, decay=25.0, enough=0.0, clamp=9.0
    )
    assert torch.allclose(found.change, goal / 2, atol=1e-2)  # (d - goal)^2 + d^2
    assert found.losses[0] == pytest.approx(5.0)
    assert found.losses[-1] == pytest.approx(1.25, abs=0.05)


def test_each_change_stays_within_its_clamp() -> None:
    start = torch.tensor([[1.0, 0.0], [0.0, 10.0]])
    found = optimal_value(start, lambda d: -d.sum(), steps=50, decay=0.0, clamp=0.75, enough=-99.0)
    assert torch.allclose(found.change.norm(dim=-1), torch.tensor([0.75, 7.5]))


def test_it_stops_when_the_loss_is_small_enough() -> None:
    found = optimal_value(torch.ones(2), lambda d: 1 - d.sum(), lr=0.1, steps=20, enough=0.5, decay=0.0)
    assert len(found.losses) == 4
    assert found.losses[-1] == pytest.approx(0.4)


def test_losses_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(NotFiniteError, match="found nan at step 0"):
        optimal_value(torch.ones(2), lambda d: d.sum() * torch.nan)
    with pytest.raises(PrismaError, match="depends on the change"):
        optimal_value(torch.ones(2), lambda d: torch.ones(()))
    with pytest.raises(PrismaError, match="all 0"):
        optimal_value(torch.zeros(2), lambda d: d.sum())
    with pytest.raises(PrismaError, match="steps, lr and clamp above 0"):
        optimal_value(torch.ones(2), lambda d: d.sum(), steps=0)
