"""Whether what code printed is what a page says, up to the rounding in which processors differ."""

import re

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|(?<![\w.])-?\.\d+")
SHARE = 0.02
"""By how much of itself a number may differ; by one unit of its last place, if that is more."""
ROUNDING = 1e-4
"""A smaller number is an error of rounding, of which only the size is the same everywhere."""


def expect_printed(found: str, stated: str) -> None:
    """Fail unless the words are the same, and every number is the stated one up to rounding.

    Spaces may differ, since numbers have signs; so may the dashes under a table.
    """
    assert _words(found) == _words(stated)
    numbers = zip(NUMBER.findall(found), NUMBER.findall(stated), strict=True)
    assert [(x, y) for x, y in numbers if not agree(x, y)] == [], "(printed, stated)"


def _words(text: str) -> list[str]:
    return re.sub(r"-{3,}", "---", NUMBER.sub("#", text)).split()


def agree(found: str, stated: str) -> bool:
    """Whether two printed numbers are the same up to rounding. Whole numbers are the same or not."""
    if found == stated:
        return True
    if "." not in stated and "e" not in stated:
        return False
    x, y = (float(text.replace(",", "")) for text in (found, stated))
    largest = max(abs(x), abs(y))
    if largest < ROUNDING:
        return largest <= 10 * max(min(abs(x), abs(y)), 1e-9)
    return abs(x - y) <= max(SHARE * largest, 1.01 * _unit(stated))


def _unit(number: str) -> float:
    """What one more in the last place is worth: .01 of 3.81, 1e-6 of 1.2e-5."""
    digits, _, power = number.partition("e")
    return 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
