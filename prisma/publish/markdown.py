"""Text of strangers in Markdown, YAML and BibTeX: it stays text, on one line, short, and links to nothing.

Escapes cannot do this alone: a Markdown renderer looks for addresses, mentions and issue numbers (`www.x.org`, `@user`,
`#123`) in text after it has removed the escapes. So what is more than plain words is shown as code, where it does not.
"""

import re
from collections.abc import Iterable
from typing import Any

from prisma.errors import PrismaError, printable

LONGEST = 400  # characters
LONGEST_LABEL = 60  # characters
LABELS = 100  # that a card lists
_PLAIN = re.compile(r"[\w .,;:()'\"+/%=?\u00b0\u00b7\u00d7\u2013\u2014\u2026-]*")  # words, and harmless signs
_MORE = re.compile(
    r"""^([-+]|\d+[.)])(\s|$) | ^[=-]+$  # a list, or the line below a heading
    | //                    # an address with its scheme
    | \w\.[^\W\d]           # the name of a machine, or of a file
    | :\w+:                 # an emoji
    | \b(mailto|xmpp|tel):
    | \bGH-\d               # an issue
    | \b[0-9a-f]{7,}\b      # a commit
    """,
    re.VERBOSE | re.IGNORECASE,
)


def one_line(value: Any, longest: int = LONGEST) -> str:
    """A value as printable text on one line, cut in the middle to `longest` characters.

    Raises:
        PrismaError: there is nothing to see.
    """
    words = printable(" ".join(str(value).split()), longest)
    if not words:
        raise PrismaError("expected text for the card; found only spaces")
    return words


def text(value: Any, longest: int = LONGEST) -> str:
    """In a paragraph, a list or a heading: plain words as they are, anything else as code."""
    words = one_line(value, longest)
    if _PLAIN.fullmatch(words) and not _MORE.search(words):
        return words.replace("_", "\\_")
    return code(words, longest)


def code(value: Any, longest: int = LONGEST) -> str:
    """A code span."""
    return f"`{fenced(value, longest)}`"


def fenced(value: Any, longest: int = LONGEST) -> str:
    """A line of a code block, or the inside of a code span."""
    return one_line(value, longest).replace("`", "'")


def cell(markdown: str) -> str:
    """Markdown of these functions, in a cell of a table."""
    return markdown.replace("\\|", "\\\u00a6").replace("|", "\\|")


def bibtex(value: Any) -> str:
    """A value of a BibTeX field: letters, digits and a few signs; underscores are escaped, anything else is a dash."""
    return re.sub(r"[^A-Za-z0-9._+/ -]+", "-", one_line(value, LONGEST_LABEL)).replace("_", "\\_")


def listing(names: Iterable[str], between: str = " · ") -> str:
    """The first `LABELS` names, and how many more there are."""
    known = list(names)
    more = [f"and {len(known) - LABELS:,} more"] if len(known) > LABELS else []
    return between.join([*(text(name, LONGEST_LABEL) for name in known[:LABELS]), *more])


def number(value: float) -> str:
    """Four decimals; of a number that these cannot show, two digits."""
    return f"{value:.4f}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.1e}"
