"""What Prisma says when it cannot do what was asked: one sentence, what was expected and what was found."""

import difflib
from collections.abc import Iterable


class PrismaError(ValueError):
    """Something outside the code is wrong: an argument, a file, a name. The message is one sentence for the user."""


class UnsupportedModelError(PrismaError):
    """A pretrained model that cannot be converted exactly. The message names the property that stands in the way."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """The `n` known names most like `name`, as text for an error message: "a, b, c"."""
    names = sorted(set(known))
    return ", ".join(difflib.get_close_matches(name, names, n=n, cutoff=0.0)) or "none"
