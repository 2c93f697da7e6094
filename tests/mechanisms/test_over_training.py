"""Change points of a mouse whose training was written by hand."""

from functools import partial

import pytest
import torch

from prisma.mechanisms import over_training
from prisma.mechanisms.given import DoesNotApplyError
from prisma.mechanisms.over_training import chosen_steps, dynamics
from prisma.vit import ViT
from tests.planted_mouse import BEFORE, given, mouse

STEPS = (0, 1, 2, 4, 8, 16, 32)


def at(step: int) -> ViT:
    """Nothing is written before step 8, and all of it from there on."""
    model = mouse()
    if step < 8:
        model.readout.head.weight.data.zero_()  # type: ignore[union-attr]
    return model


def test_the_planted_step_is_found_with_its_jump() -> None:
    some = given(checkpoints={step: partial(at, step) for step in STEPS})
    found = dynamics(some)
    first, last, when, jump = found.row("changes", "accuracy").cells
    assert first == (0.25,) and last == (1,)  # logits of zero tie: a fourth is right
    assert when == (8, 8, 8) and jump == (0.75, 0.75, 0.75)
    head = found.row("changes", f"head {BEFORE}").cells
    assert head[2] == (8, 8, 8) and head[3][1] > 0
    assert found.row("changes", "head 0.2").words == "no_step"
    says = [one.says for one in found.findings]
    assert says[:2] == ["checkpoints", "change"] and found.findings[1].in_card
    assert found.findings[0].numbers == (7, 0, 32, 96)
    assert found.row("curves", "step 4").cells[0] == (0.25,)


def test_it_needs_two_checkpoints() -> None:
    for known, says in ((None, "no_checkpoints"), ({}, "few_checkpoints"), ({0: partial(at, 0)}, "few_checkpoints")):
        with pytest.raises(DoesNotApplyError) as why:
            dynamics(given(checkpoints=known))
        assert why.value.finding.says == says


def diverged(step: int) -> ViT:
    model = at(step)
    model.embed.prefix.data.fill_(torch.nan)
    return model


def test_checkpoints_that_diverged_are_left_out_and_said() -> None:
    some = {step: partial(diverged if step in (4, 16) else at, step) for step in STEPS}
    found = dynamics(given(checkpoints=some))
    assert [one.says for one in found.findings[:2]] == ["checkpoints", "lost_checkpoints"]
    assert found.findings[0].numbers == (5, 0, 32, 96) and found.findings[1].numbers == (2, 7, 4)
    assert found.row("changes", "accuracy").cells[2] == (8, 8, 8)
    assert [row.name for row in found.table("curves")] == [f"step {step}" for step in (0, 1, 2, 8, 32)]
    with pytest.raises(DoesNotApplyError) as why:
        dynamics(given(checkpoints={0: partial(at, 0), 1: partial(diverged, 1)}))
    assert (why.value.finding.says, why.value.finding.numbers) == ("few_finite_checkpoints", (1, 2))


def test_of_many_checkpoints_some_are_measured() -> None:
    assert chosen_steps([0, 1, 2]) == [0, 1, 2]
    some = chosen_steps(list(range(0, 1000, 2)))
    assert len(some) == over_training.MOST and (some[0], some[-1]) == (0, 998) and some == sorted(set(some))
