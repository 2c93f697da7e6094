"""Shared by the commands: options with one meaning, tables, and the advice after an interruption."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from prisma.errors import PrismaError, shown

ANY_WIDTH = 100_000  # characters: no line is folded
HubOption = Annotated[Path, typer.Option("--hub", help="Folder hub (a Hugging Face cache folder).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Turn Ctrl-C in the block into a PrismaError that ends with `advice`."""
    try:
        yield
    except KeyboardInterrupt:
        raise PrismaError(f"stopped; {advice}") from None


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """{"a": "1"} from ["a=1"]. Another form is a wrong usage."""
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"expected key=value; found {pair!r}", param_hint="--set")
    return {key.strip(): value.strip() for key, value in (pair.split("=", 1) for pair in pairs)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a table for stdout, laid out by rich.

    In a terminal, long cells are folded to its width. Elsewhere (a pipe, a file) a row is a line, however long.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    layout = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, first in rows[0].items():
        layout.add_column(Text(name), justify="right" if isinstance(first, int | float) else "left", overflow="fold")
    for row in rows:
        layout.add_row(*(Text(shown(value) if isinstance(value, str) else str(value)) for value in row.values()))
    terminal = sys.stdout.isatty()
    console = Console(file=StringIO(), force_terminal=terminal, width=None if terminal else ANY_WIDTH)
    with console.capture() as captured:
        console.print(layout)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
