"""Two texts agree where only rounding differs."""

import pytest

from tests.docs.printed import agree, expect_printed


@pytest.mark.parametrize(
    ("found", "stated"),
    [("0.97", "0.96"), ("3.81", "3.85"), ("-0.00", "0.00"), ("8e-06", "6e-06"), ("1,234.5", "1,234.4"), ("7", "7")],
)
def test_rounding_agrees(found: str, stated: str) -> None:
    assert agree(found, stated) and agree(stated, found)


@pytest.mark.parametrize(
    ("found", "stated"),
    [
        ("0.97", "0.91"),
        ("3.81", "4.01"),
        ("-0.20", "0.20"),
        ("8e-04", "6e-06"),
        ("8", "7"),
        ("120", "121"),
        ("0.2", "0.4"),
        ("1e-12", "9e-5"),
    ],
)
def test_other_numbers_do_not(found: str, stated: str) -> None:
    assert not agree(found, stated) and not agree(stated, found)


def test_words_are_the_same_and_spaces_may_differ() -> None:
    expect_printed("head 1.0: -0.00 (0.1 to 0.2)\n-----", "head 1.0:  0.00 (0.1 to 0.2)\n----")
    for wrong in ("head 1.0: 0.00 (0.1 to 0.4)", "heads 1.0: 0.00 (0.1 to 0.2)", "head 1.0: 0.00 (0.1 to 0.2) 3"):
        with pytest.raises(AssertionError):
            expect_printed(wrong, "head 1.0: 0.00 (0.1 to 0.2)")
