"""The error of everything that the user can mend: one sentence that states what was expected and what was found.

Names and values may come from files and from strangers. Here is the one home of how they are shown: `printable` for
text of any kind, `shown` and `quoted` for a name or value, `listed` for many. Every
message of a `PrismaError` is printable.
"""

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any
from unicodedata import category

LONGEST_NAME, LONGEST_MESSAGE = 80, 4000  # characters
NAMED = 20  # the largest number of names that a list in a message has
COMPARED = 20_000  # the largest number of names that `nearest` looks at


_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, line and paragraph separators
_TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class PrismaError(ValueError):
    """An argument, a file or a name is wrong. The message is one sentence for the user."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), LONGEST_MESSAGE))


class UnsupportedModelError(PrismaError):
    """A pretrained model that cannot be converted exactly. The message names the property that is not supported."""


class NotFiniteError(PrismaError):
    """NaN or an infinity where a finite number is needed; the message names the image, the weight or the site."""


class PrismaWarning(UserWarning):
    """Something is probably wrong, and there is an answer all the same. The message is one sentence for the user."""


def warn(sentence: str) -> None:
    """Warn the user, and name the line of theirs that called Prisma: not ours, nor that of a decorator of torch."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("prisma", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, PrismaWarning, stacklevel=level)


def printable(text: str, longest: int | None = None) -> str:
    """Text that a terminal, a table or a page shows as it is, on one line, cut in the middle to `longest` characters.

    Control characters, line breaks, marks that change the direction of text and what is no character become escapes
    such as `\\x1b`; a byte of a file name that is not UTF-8 becomes `\\xe9`.
    """
    if longest is not None and len(text) > longest:
        text = _cut(text, longest)
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _escape(character) for character in text)
    return text if longest is None or len(text) <= longest else _cut(text, longest)


def is_text(text: str) -> bool:
    """Whether text has no control characters, line breaks or marks that turn its direction, and is whole characters.

    Joiners and unbreakable spaces are text: Persian, French and emoji are written with them.
    """
    return not any(category(character) in _NO_TEXT or character in _TURNING for character in text)


def shown(value: Any, longest: int = LONGEST_NAME) -> str:
    """A name as it is, or another value as Python writes it, printable and short: for a table, a page, a list."""
    return printable(value, longest) if isinstance(value, str) else quoted(value, longest)


def quoted(value: Any, longest: int = LONGEST_NAME) -> str:
    """A value as Python writes it, printable and short: for a message."""
    try:
        return printable(repr(value[:longest] if isinstance(value, str | bytes) else value), longest)
    except Exception:  # a whole number of more than 4,300 digits, lists nested too deep, a foreign __repr__
        return f"a {type(value).__name__} that cannot be written"


def listed(names: Sequence[str], n: int = NAMED, between: str = ", ") -> str:
    """The first `n` names, and how many more there are: "a, b, c and 4,980 more"."""
    more = f" and {len(names) - n:,} more" if len(names) > n else ""
    return between.join(shown(name, 2 * LONGEST_NAME) for name in names[:n]) + more


def _cut(text: str, longest: int) -> str:
    """The beginning and the end of a text, and between them what is left out."""
    tail = longest // 4
    return f"{text[: longest - tail - 1]}…{text[len(text) - tail :]}"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if category(character) == "Zs":  # a wide or unbreakable space
        return " "
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def by_number(name: str) -> list[tuple[int, str]]:
    """A key for sorting names as people count: `step-999999` before `step-1000000`, text before and after numbers."""
    parts = re.split(r"([0-9]+)", name)
    numbers = [(len(part := digits.lstrip("0")), part) for digits in parts[1::2]]
    texts = [(0, text) for text in parts[::2]]
    return [key for pair in zip(texts, [*numbers, (0, "")], strict=True) for key in pair] + [(0, name)]


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """The `n` known names most similar to `name`, as text for an error message: "a, b, c"."""
    names = sorted(set(known))[:COMPARED]
    close = difflib.get_close_matches(name[:LONGEST_NAME], names, n=n, cutoff=0.0)
    return ", ".join(map(shown, close)) or "none"


def expect_packages(*names: str, extra: str = "all") -> None:
    """Check that optional packages can be imported, before any work is done. `extra` is the extra that installs them.

    Raises:
        PrismaError: one of them is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise PrismaError(
                f"expected the package {name}; found none: install it with pip install 'prisma-vit[{extra}]'"
            )
