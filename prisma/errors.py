"""The error of everything that the user can mend: one sentence that states what was expected and what was found."""

import difflib
from collections.abc import Iterable
from importlib.util import find_spec


class PrismaError(ValueError):
    """An argument, a file or a name is wrong. The message is one sentence for the user."""


class UnsupportedModelError(PrismaError):
    """A pretrained model that cannot be converted exactly. The message names the property that is not supported."""


class NotFiniteError(PrismaError):
    """NaN or an infinity where a finite number is needed; the message names the image, the weight or the site."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """The `n` known names most similar to `name`, as text for an error message: "a, b, c"."""
    names = sorted(set(known))
    return ", ".join(difflib.get_close_matches(name, names, n=n, cutoff=0.0)) or "none"


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
