"""Heads and blocks of a mouse that was written by hand are named as they are, with the numbers of the analyses."""

import torch

import prisma
from prisma.mechanisms.findings import rounded
from prisma.mechanisms.image_steps import (
    _part_finding,
    answers,
    as_numbers,
    heads,
    heads_that,
    lens,
    scored_heads,
    verdict_of,
)
from prisma.mechanisms.sentences import sentence
from prisma.metrics import Rank
from tests.planted_mouse import BEFORE, READS, USELESS, given


def right(of: object) -> object:
    """The share of right answers, in another way: no class has a larger logit."""
    return lambda logits: (Rank(of)(logits) == 0).double()  # type: ignore[arg-type]


def test_the_accuracy_and_that_of_the_most_frequent_class() -> None:
    some = given()
    (finding,) = answers(some).findings
    counted = sum(
        int(run.argmax()) == int(label) for run, label in zip(some.answers(some.images), some.wanted, strict=True)
    )
    assert finding.numbers[3:5] == (counted, 96) == (96, 96)
    assert finding.numbers[5] == rounded(max(some.wanted.tolist().count(c) for c in range(4)) / 96)
    assert finding.numbers[:3] == (1, rounded(96 / (96 + 1.959964**2)), 1)  # Wilson's interval of 96 of 96


def test_the_known_heads_are_needed_and_the_useless_one_is_not() -> None:
    found = heads(given())
    said = {one.names[0]: one for one in found.findings if one.names}
    assert (said[BEFORE].says, said[BEFORE].names[1]) == ("head_needed", "previous_patch")
    assert said[READS].says == "unnamed_needed"
    assert (said[USELESS].says, said[USELESS].names[1]) == ("head_unused", "itself")
    assert said.keys() == {BEFORE, READS, USELESS} and found.findings[0].numbers == (2, 6)
    text = sentence(said[USELESS], "accuracy")
    assert text.startswith("Head 0.2 attends to its own token: 0.98") and "not needed: ablating it changes" in text
    assert said[USELESS].numbers[-2:] == (96, rounded(1 - 0.05 ** (1 / 96)))


def test_numbers_are_those_of_the_analyses_called_by_hand() -> None:
    some = given()
    found = heads(some)
    by_hand = prisma.ablation(some.model, some.images, "attn.z", right(some.wanted), by="mean", axis="head")  # type: ignore[arg-type]
    scores = prisma.head_scores(some.model, some.images, "previous_patch")
    low, high = (-by_hand.interval()).flip(0)[:, 0, 1].tolist()
    row = found.row("heads", BEFORE)
    assert row.cells[2] == tuple(rounded(x) for x in (-by_hand.effect[0, 1], low, high))
    assert row.cells[0][0] == rounded(scores.mean[0, 0, 1]) and row.cells[1] == (rounded(scores.chance.mean()),)
    assert row.words == "needed_previous_patch"
    assert heads_that(scored_heads(some), "previous_patch") == [(0, 1)]


def test_what_an_interval_says() -> None:
    assert verdict_of((0.1, 0.01, 0.2)) == "needed"
    assert verdict_of((0.1, 0.0, 0.2)) == verdict_of((0, -0.1, 0.2)) == "not_needed"
    assert verdict_of((-0.1, -0.2, -0.01)) == "against"


def test_the_answer_is_readable_after_the_last_block_and_attention_is_needed() -> None:
    some = given()
    found = lens(some)
    by_hand = prisma.logit_lens(some.model, some.images, tokens=False).readout
    for stage in range(3):
        share = right(some.wanted)(by_hand[:, stage]).mean()  # type: ignore[operator]
        guessed = found.row("stages", f"after block {stage - 1}" if stage else "embedding").cells[0][0]
        assert guessed == rounded(share) or stage < 2  # before the last block all logits tie: a fourth each
        assert stage == 2 or guessed == 0.25
    needed = {row.name: row.words for row in found.table("parts")}
    assert needed == {"attention 0": "needed", "attention 1": "needed"}
    assert [one.says for one in found.findings] == ["stages", "largest_step", "part_needed"]
    assert found.findings[1].numbers[0] == 1  # in block 1


def test_a_part_that_the_mouse_is_better_without_is_not_said_to_have_no_effect() -> None:
    finding = _part_finding("mlp 0", (-0.1, -0.2, -0.05))
    assert sentence(finding, "accuracy").endswith(
        "raises the accuracy by 0.1 (0.05 to 0.2), the smallest of these effects."
    )
    assert _part_finding("mlp 0", (-0.1, -0.2, 0)).says == "part_none"


def test_one_row_of_numbers_is_the_measure_and_the_harm_of_each_head() -> None:
    some = given()
    rows = as_numbers(some)
    assert rows.shape == (96, 7) and rows[:, 0].mean() == 1
    harms = [heads(some).row("heads", f"{i // 3}.{i % 3}").cells[2][0] for i in range(6)]
    assert [rounded(x) for x in rows[:, 1:].mean(0)] == harms
    assert torch.equal(rows, as_numbers(given()))
