"""The page and the section are functions of the values: each number that they print is one of them."""

import re
from dataclasses import replace

import pytest

from prisma.mechanisms import Mechanism, mechanism, page, section
from prisma.mechanisms.catalog import STEPS
from prisma.mechanisms.findings import Row, StepFindings, Table
from prisma.mechanisms.page import MOST_ROWS, pictured, told
from prisma.mechanisms.sentences import SENTENCES, sentences, shown_number
from prisma.train.objectives import OBJECTIVES
from tests.mechanisms.test_findings import CARD
from tests.planted_mouse import subject

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?(?![\w])")


@pytest.fixture(scope="module")
def card() -> Mechanism:
    return mechanism(subject(), limit=48, pairs=16)


def test_each_number_of_the_page_is_in_the_values(card: Mechanism) -> None:
    """Beside those of heads' names and of what the fixed texts say."""
    numbers = {shown_number(x) for one in card.steps for finding in one.findings for x in finding.numbers}
    rows = [row for one in card.steps for table in one.tables for row in table.rows]
    numbers |= {shown_number(x) for row in rows for cell in row.cells for x in cell}
    numbers |= {f"{card.images:,}", f"{card.pairs:,}", f"{card.seed}", card.version}
    names = " ".join([row.name for row in rows] + [n for s in card.steps for f in s.findings for n in f.names])
    fixed = " ".join([*SENTENCES.values(), *(step.reading for step in STEPS)])
    known = numbers | set(_NUMBER.findall(names)) | set(_NUMBER.findall(fixed)) | {"95", "256"}
    text = page(Mechanism.parse(card.to_json())).replace(card.weights[:12], "")
    printed = _NUMBER.findall(text)
    assert len(printed) > 100
    assert set(printed) - known == set()


def test_the_page_has_all_sentences_and_the_section_the_main_ones(card: Mechanism) -> None:
    text, short = page(card), section(card)
    assert text == page(Mechanism.parse(card.to_json()))
    for step in STEPS:
        assert f"## {step.title}\n" in text
        assert all(f"- {line}\n" in text for line in sentences(card, step.name))
        assert all(f"- {line}\n" in short for line in sentences(card, step.name, in_card=True))
        assert all(line in told(card) for line in sentences(card, step.name))
    assert short.startswith("## Mechanism\n") and "](mechanism.md)" in short and "](mechanism/heads.png)" in short
    assert pictured(card) == ("heads", "circuit")
    assert short.count("\n- ") < 14


def test_a_step_that_does_not_apply_is_one_sentence(card: Mechanism) -> None:
    after = page(card).split("## Dynamics")[1]
    assert after.count("- This step does not apply:") == 1 and "How to read it" not in after


def test_the_circuit_stands_beside_random_ones(card: Mechanism) -> None:
    assert "10 random circuits with as many edges give" in page(card) and "by random circuits: mean" in page(card)


def test_long_tables_say_how_many_rows_are_left_out() -> None:
    rows = tuple(Row(f"0.{i}", ((), (), (0.0, 0.0, 0.0)), "not_needed") for i in range(MOST_ROWS + 3))
    step = replace(CARD.steps[1], tables=(Table("heads", rows),))
    text = page(replace(CARD, steps=(CARD.steps[0], step)))
    assert "3 more rows are in" in text and f"| 0.{MOST_ROWS - 1} |" in text and f"| 0.{MOST_ROWS} |" not in text
    assert page(replace(CARD, steps=(*CARD.steps, StepFindings("later", ())))) == page(CARD)  # of another version


def test_a_mouse_to_which_nothing_applies_says_so() -> None:
    masked = OBJECTIVES["masked"].__new__(OBJECTIVES["masked"])
    card = mechanism(replace(subject(), objective=masked), limit=16, pairs=8)
    assert "No step applies to this mouse; the page says why." in section(card) and not pictured(card)
    assert page(card).count("- This step does not apply:") == len(STEPS) and "How to read it" not in page(card)
