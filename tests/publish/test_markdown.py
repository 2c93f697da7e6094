import pytest

from prisma.errors import PrismaError
from prisma.publish.markdown import bibtex, cell, code, fenced, listing, number, one_line, text


@pytest.mark.parametrize(
    "words",
    [
        "vertical, same",
        "CC BY 4.0, via scikit-learn",
        "0.003",
        "-1",
        "init 0, order 0",
        "a cat's (domestic) eye",
        "\u00e9t\u00e9",
    ],
)
def test_plain_words_stay_as_they_are(words: str) -> None:
    assert text(words) == words


@pytest.mark.parametrize(
    ("words", "markdown"),
    [
        ("order_seed", "order\\_seed"),
        ("a\nb", "a b"),
        ("see www.x", "`see www.x`"),
        ("http://x", "`http://x`"),
        ("@user", "`@user`"),
        ("#12", "`#12`"),
        ("a.org", "`a.org`"),
        ("- a", "`- a`"),
        ("1. a", "`1. a`"),
        ("===", "`===`"),
        (":smile:", "`:smile:`"),
        ("<b>", "`<b>`"),
        ("`a`", "`'a'`"),
        ("\u202ea", "`\\u202ea`"),
        ("abcdef0123", "`abcdef0123`"),
    ],
)
def test_more_than_plain_words_is_code(words: str, markdown: str) -> None:
    assert text(words) == markdown


def test_a_bar_does_not_end_a_cell() -> None:
    assert cell(code("a|b")) == "`a\\|b`" and cell(code("a\\|b")) == "`a\\\u00a6b`"


def test_text_is_short_and_there_is_some() -> None:
    assert len(one_line("x" * 10**6)) == 400 and "\u2026" in one_line("x" * 10**6)
    assert listing(map(str, range(3))) == "0 \u00b7 1 \u00b7 2" and listing(map(str, range(1234))).endswith(
        " and 1,134 more"
    )
    with pytest.raises(PrismaError, match="expected text for the card; found only spaces"):
        text(" \n")


def test_code_blocks_and_bibtex_stay_closed() -> None:
    assert fenced("a ``` b\nc") == "a ''' b c"
    assert bibtex("lab/a_b, x}} @{1}") == "lab/a\\_b- x- -1-"


@pytest.mark.parametrize(
    ("value", "words"), [(0.98611, "0.9861"), (0, "0.0000"), (2e-5, "2.0e-05"), (1e9, "1.0e+09"), (0.0004, "0.0004")]
)
def test_a_number_shows_its_digits(value: float, words: str) -> None:
    assert number(value) == words
