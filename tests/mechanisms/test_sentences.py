"""Each sentence needs exactly what steps put into it, and prints numbers as the JSON has them."""

import re

import pytest

from prisma.analysis.attention.score_functions import SCORES
from prisma.errors import PrismaError
from prisma.mechanisms.findings import Finding, Row
from prisma.mechanisms.sentences import (
    ATTENDS,
    GOALS,
    SENTENCES,
    WORDS,
    row_words,
    sentence,
    sentences,
    shown_cell,
    shown_number,
)
from prisma.train.objectives import OBJECTIVES
from tests.mechanisms.test_findings import CARD


def test_every_score_of_a_head_has_words() -> None:
    assert ATTENDS.keys() == SCORES.keys()
    assert GOALS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("says", SENTENCES)
def test_every_sentence_can_be_said_and_says_all_its_numbers(says: str) -> None:
    needed = [int(i) for i in re.findall(r"\{n\[(\d)\]\}", SENTENCES[says])]
    count = max(needed, default=-1) + 1
    assert set(needed) == set(range(count)), "a number that is measured and not said"
    numbers = tuple(0.101 + i / 1000 for i in range(count))
    names = ("masked",) if "{goal}" in SENTENCES[says] else ("head 0.1", "previous_patch")
    text = sentence(Finding(says, names, tuple(round(x, 3) for x in numbers)), "accuracy")
    assert all(shown_number(round(x, 3)) in text for x in numbers)
    assert "{" not in text and text.endswith(".")


def test_sentences_of_a_card() -> None:
    assert sentences(CARD, "answers") == [
        "It answers 12 of 24 test images right, an accuracy of 0.5 (0.25 to 0.75); always the most frequent class "
        "would give 0.125."
    ]
    assert sentences(CARD, "heads", in_card=True) == ["1 of 2 heads are needed, each ablated alone."]
    worse = sentence(Finding("part_needed", ("mlp 0",), (1, 0.5, 2)), "loss")
    assert worse.endswith("replacing it by its mean raises the loss by 1 (0.5 to 2).")
    moved = Finding("change", ("accuracy",), (0.1, 1, 128, 64, 256, 0.8, 0.7, 0.9))
    assert sentence(moved, "accuracy").startswith("The accuracy goes from 0.1 to 1; it changes most at step 128 (64 to")


def test_numbers_and_cells() -> None:
    assert [shown_number(x) for x in (12345.0, 0.5, -0.001)] == ["12,345", "0.5", "-0.001"]
    assert [shown_cell(cell) for cell in ((), (1.0,), (1.0, 0.5, 2.0))] == ["", "1", "1 (0.5 to 2)"]
    assert row_words(Row("0.1", (), "not_needed_row")) == "the other patches of its row: not needed"
    assert all("|" not in words for words in WORDS.values())


@pytest.mark.parametrize(
    ("finding", "measure"),
    [
        (Finding("invented"), "accuracy"),
        (Finding("heads", (), (1,)), "accuracy"),
        (Finding("carries", (), (1, 1, 1)), "accuracy"),
        (Finding("heads", (), (1, 0.12345)), "accuracy"),
        (Finding("head_needed", ("0.1", "invented"), (1,) * 7), "accuracy"),
        (Finding("heads", (), (1, 2)), "beauty"),
    ],
)
def test_what_no_step_says_is_refused(finding: Finding, measure: str) -> None:
    with pytest.raises(PrismaError):
        sentence(finding, measure)


def test_cells_of_two_numbers_and_words_of_others_are_refused() -> None:
    for call in (lambda: shown_cell((1.0, 2.0)), lambda: row_words(Row("0.1", (), "bought"))):
        with pytest.raises(PrismaError):
            call()
