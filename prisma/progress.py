"""Progress bars on stderr. Whatever ends one, what is printed next has a line of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def progress(total: int, what: str | None, unit: str, *, done: int = 0, shown: bool = True) -> Iterator[Any]:
    """A bar, whose `update(n)` moves it on.

    After an error it is wiped from a terminal, so that only the message is left; where stderr is a file or a pipe, its
    line ends. A loop over `tqdm(...)` does neither: it ends only when nothing refers to it any more, after the message.
    """
    style = {"desc": what, "unit": unit, "file": sys.stderr, "disable": not shown}
    with tqdm(total=total, initial=done, leave=not sys.stderr.isatty(), **style) as bar:
        yield bar
        bar.leave = True
