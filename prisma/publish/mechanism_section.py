"""The section of a mechanism card in a model card, and which files are beside it.

The section is between two marks, each a line of its own, and follows from `mechanism.json`. What else the card says
stays byte by byte.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prisma.checkpoint import WEIGHTS
from prisma.errors import PrismaError
from prisma.files import sha256
from prisma.mechanisms.findings import SOURCE, Mechanism
from prisma.mechanisms.page import ALT, PAGE, PICTURES, page, pictured, section
from prisma.publish.commits import File
from prisma.reading import read_bytes

BEGIN, END = "<!-- mechanism -->", "<!-- /mechanism -->"
BEFORE = "## Load it"
"""The heading before which the section stands in a card that has none; without it, it stands at the end."""
_BETWEEN = re.compile(rf"^{BEGIN}[ \t\r]*\n(.*?)^{END}[ \t]*\r?\n?(?:\r?\n)?", re.MULTILINE | re.DOTALL)
_MARK = re.compile(rf"^({BEGIN}|{END})[ \t\r]*$", re.MULTILINE)
_HEADING = re.compile(rf"^{BEFORE}[ \t\r]*$", re.MULTILINE)
_PICTURE = re.compile(rf"{PICTURES}/[a-z0-9_]{{1,40}}\.png")


def is_mechanism_name(name: str) -> bool:
    """Whether a file of `main` belongs to a mechanism card."""
    return name in (PAGE, SOURCE) or _PICTURE.fullmatch(name) is not None


def section_in(card: str) -> str:
    """The section of a card, without its marks; empty if there is none.

    Raises:
        PrismaError: one of the marks without the other.
    """
    if found := _BETWEEN.search(card):
        return found[1]
    if mark := _MARK.search(card):
        raise PrismaError(f"expected a line {BEGIN} in the card, and a line {END} after it; found {mark[1]} alone")
    return ""


def with_section(card: str, text: str) -> str:
    """A card with this section in the place of the one that is there, or without any if it is empty.

    Raises:
        PrismaError: one of the marks without the other.
    """
    section_in(card)
    marked = f"{BEGIN}\n{text}{END}\n\n" if text else ""
    if _BETWEEN.search(card):
        return _BETWEEN.sub(lambda _: marked, card, count=1)
    if not text:
        return card
    if (heading := _HEADING.search(card)) is not None:
        return card[: heading.start()] + marked + card[heading.start() :]
    return card + ("" if card.endswith("\n") or not card else "\n") + f"\n{marked}"


def card_with_section(data: bytes, text: str, where: str) -> bytes:
    """The bytes of a card with this section; all others stay as they are.

    Args:
        where: what the bytes are, for messages.

    Raises:
        PrismaError: they are not text in UTF-8, or one of the marks is there without the other.
    """
    try:
        return with_section(data.decode(), text).encode()
    except UnicodeDecodeError:
        raise PrismaError(f"expected text in UTF-8 in {where}; found other bytes") from None


def own_mechanism(folder: Path) -> Mechanism | None:
    """The mechanism card that lies beside the weights of a run; None if there is none.

    Raises:
        PrismaError: it is damaged, or of other weights.
    """
    if not (folder / SOURCE).is_file():
        return None
    card = Mechanism.parse(read_bytes(folder / SOURCE))
    if card.weights != (found := sha256(folder / WEIGHTS)):
        raise PrismaError(
            f"expected {SOURCE} of the weights in {folder}, of SHA-256 {found}; found that of {card.weights}: run "
            f"`prisma "
            f"mechanism {folder}` again, or remove it"
        )
    return card


def own_files(folder: Path, card: Mechanism) -> tuple[File, ...]:
    """The files of a mechanism card beside a run: those that its values render to, and the pictures that lie there.

    Raises:
        PrismaError: a picture is missing.
    """
    names = picture_names(card)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise PrismaError(
            f"expected the picture {missing[0]} of the mechanism card in {folder}; found none: run `prisma mechanism "
            f"{folder}` again"
        )
    return (*rendered_files(card), *(File.of(name, folder / name) for name in names))


def rendered_files(card: Mechanism) -> tuple[File, ...]:
    """The page and the values of a mechanism card."""
    return File.of(PAGE, page(card).encode()), File.of(SOURCE, card.to_json())


def picture_names(card: Mechanism) -> tuple[str, ...]:
    return tuple(f"{PICTURES}/{name}.png" for name in pictured(card))


def stale_pictures(card: Mechanism, names: Iterable[str]) -> tuple[str, ...]:
    """Of these files, the pictures that a card before this one had and this one has not."""
    own = {f"{PICTURES}/{step}.png" for step in ALT} - set(picture_names(card))
    return tuple(sorted(own.intersection(names)))


def mechanism_problems(card: Mechanism, found: str | None, weights: str | None, names: Iterable[str]) -> Iterator[str]:
    """What is wrong with a published mechanism card.

    Args:
        found: the page; None if there is none.
        weights: SHA-256 of the weights of `main`; None if it is not known.
        names: of the files of `main`.
    """
    wanted = page(card)
    if found is not None and found != wanted:
        lines = zip(wanted.splitlines(), found.splitlines(), strict=False)
        first = next(((a, b) for a, b in lines if a != b), ("more or fewer lines", "others"))
        yield f"expected {PAGE} as {SOURCE} renders ({first[0][:120]!r}); found {first[1][:120]!r}"
    if weights is not None and card.weights != weights:
        yield f"expected {SOURCE} of the weights of main, of SHA-256 {weights}; found that of {card.weights}"
    there = {name for name in names if is_mechanism_name(name)}
    for name in picture_names(card):
        if name not in there:
            yield f"expected the picture {name} of {SOURCE}; found none"


def section_of(card: Mechanism | None) -> str:
    """The section that a model card has with this mechanism card, or without one."""
    return "" if card is None else section(card)
