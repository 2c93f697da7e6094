"""What a person wrote into a card, between two marks: it stays when the card is rendered again."""

import re
from pathlib import Path

from prisma.errors import PrismaError
from prisma.reading import read_text

CARD = "README.md"
BEGIN, END = "<!-- prose -->", "<!-- /prose -->"
"""Each mark is a line of its own; the first of either is meant."""
_BETWEEN = re.compile(rf"^{BEGIN}[ \t\r]*\n(.*?)^{END}[ \t\r]*$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(rf"^({BEGIN}|{END})[ \t\r]*$", re.MULTILINE)


def prose_of(card: str) -> str:
    """What a person wrote into a card, between the marks; empty if there is nothing.

    Raises:
        PrismaError: one of the marks without the other.
    """
    if found := _BETWEEN.search(card):
        return found[1].strip()
    if mark := _MARK.search(card):
        raise PrismaError(f"expected a line {BEGIN} in the card, and a line {END} after it; found {mark[1]} alone")
    return ""


def with_prose(card: str, prose: str) -> str:
    """A card that has the marks, with these words between them."""
    inside = f"\n{prose.strip()}\n\n" if prose.strip() else ""
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n{inside}{END}", card, count=1)


def own_prose(run: Path) -> str:
    """What a person wrote into the card of a run, `README.md` in its folder, if there is one; see `prose_of`."""
    path = run / CARD
    return prose_of(read_text(path)) if path.is_file() else ""
