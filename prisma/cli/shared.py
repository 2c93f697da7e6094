"""What the commands share: options that mean the same everywhere, tables, and how a stop is told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from prisma.errors import PrismaError

HubOption = Annotated[Path, typer.Option("--hub", help="Folder hub (a Hugging Face cache folder).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise PrismaError(f"stopped; {advice}") from None


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"expected key=value, found {pair!r}", param_hint="--set")
    return {key.strip(): value.strip() for key, value in (pair.split("=", 1) for pair in pairs)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one shape as aligned columns under their keys."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
