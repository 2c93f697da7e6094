"""The section is put in, replaced and taken out, and every other byte stays."""

import pytest

from prisma.errors import PrismaError
from prisma.publish.mechanism_section import (
    BEGIN,
    END,
    card_with_section,
    is_mechanism_name,
    mechanism_problems,
    section_in,
    section_of,
    with_section,
)
from tests.mechanisms.test_findings import CARD

CARDS = [
    "",
    "# Mine",
    "# Mine\n",
    "# Mine\r\n\r\nwords\r\n",
    "---\nlicense: mit\n---\n\n# A\n\n## Load it\n\ncode\n\n## Load it\n",
    "no end of line\n## Load it",
    "\ufeff# A\n\n## Load it now\n",
]


@pytest.mark.parametrize("card", CARDS)
def test_in_again_and_out(card: str) -> None:
    once = with_section(card, "## Mechanism\n\none\n")
    assert section_in(once) == "## Mechanism\n\none\n" and with_section(once, "## Mechanism\n\none\n") == once
    other = with_section(once, "two \\1\n")
    assert section_in(other) == "two \\1\n" and other.count(BEGIN) == other.count(END) == 1
    assert with_section(with_section(other, ""), "") == with_section(once, "")
    gone = with_section(other, "")
    assert gone == card or (gone.startswith(card) and gone[len(card) :].strip() == "")
    if "## Load it\n" in card:
        assert gone == card and once.index(BEGIN) < once.index("## Load it")


def test_marks_alone_and_bytes_that_are_no_text_are_refused() -> None:
    for card in (f"{BEGIN}\n", f"a\n{END}\n", f"{END}\n{BEGIN}\n"):
        with pytest.raises(PrismaError, match="in the card"):
            with_section(card, "x\n")
    with pytest.raises(PrismaError, match="UTF-8 in README"):
        card_with_section(b"\xff", "x\n", "README")
    assert card_with_section(b"\xef\xbb\xbfa\r\n", "x\n", "README").startswith(b"\xef\xbb\xbfa\r\n\n<!-- mechanism -->")


def test_what_is_around_a_section_written_by_hand_stays() -> None:
    card = f"before\n{BEGIN}  \r\nold\r\n{END}\r\nafter\r\n"
    assert with_section(card, "new\n") == f"before\n{BEGIN}\nnew\n{END}\n\nafter\r\n"


def test_names_of_its_files() -> None:
    assert all(is_mechanism_name(name) for name in ("mechanism.md", "mechanism.json", "mechanism/heads.png"))
    others = (
        "mechanism/../x.png",
        "mechanism/a.svg",
        "mechanism/",
        "Mechanism.md",
        "mechanism/a/b.png",
        "a/mechanism.md",
    )
    assert not any(is_mechanism_name(name) for name in others)


def test_problems_name_what_is_wrong() -> None:
    from prisma.mechanisms import page

    names = ["mechanism/heads.png"]
    assert not list(mechanism_problems(CARD, page(CARD), CARD.weights, names))
    assert len(list(mechanism_problems(CARD, page(CARD) + "more\n", "0" * 64, []))) == 3
    assert section_of(None) == "" and section_of(CARD).startswith("## Mechanism")
