"""Change points of a mouse whose training was written by hand."""

from functools import partial

import pytest
import torch

from prisma.mechanisms import over_training
from prisma.mechanisms.given import DoesNotApplyError
from prisma.mechanisms.over_training import chosen_steps, dynamics
from prisma.mechanisms.sentences import sentence
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


def test_checkpoints_that_have_diverged_are_left_out_and_named() -> None:
    def diverged(step: int) -> ViT:
        model = at(step)
        model.embed.patch.weight.data[0] = torch.nan
        return model

    made = {step: partial(diverged if step in (0, 4) else at, step) for step in STEPS}
    found, whole = dynamics(given(checkpoints=made)), dynamics(given(checkpoints={s: partial(at, s) for s in STEPS}))
    assert found.findings[0].numbers == (5, 1, 32, 96)
    assert (found.findings[1].says, found.findings[1].names, found.findings[1].numbers) == ("diverged", ("0, 4",), (2,))
    assert "not finite: checkpoints of step 0, 4, 2 in all" in sentence(found.findings[1], "accuracy")
    assert found.row("changes", "accuracy") == whole.row("changes", "accuracy")
    assert set(found.row("curves", "step 4").cells) == {()}
    assert found.row("curves", "step 8") == whole.row("curves", "step 8")
    with pytest.raises(DoesNotApplyError) as why:
        dynamics(given(checkpoints={step: made[step] for step in (0, 1, 4)}))
    assert why.value.finding.says == "few_finite" and why.value.finding.numbers == (1,)
    assert over_training._listed([1, 2, 3, 4, 5, 6]) == "1, 2, 3, 4 and 2 more"


def test_it_needs_two_checkpoints() -> None:
    for known, says in ((None, "no_checkpoints"), ({}, "few_checkpoints"), ({0: partial(at, 0)}, "few_checkpoints")):
        with pytest.raises(DoesNotApplyError) as why:
            dynamics(given(checkpoints=known))
        assert why.value.finding.says == says


def test_of_many_checkpoints_some_are_measured() -> None:
    assert chosen_steps([0, 1, 2]) == [0, 1, 2]
    some = chosen_steps(list(range(0, 1000, 2)))
    assert len(some) == over_training.MOST and (some[0], some[-1]) == (0, 998) and some == sorted(set(some))
