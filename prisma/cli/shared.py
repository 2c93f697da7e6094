"""Shared by the commands: options with one meaning, tables, and the advice after an interruption."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from prisma.errors import printable

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ANY_WIDTH = 100_000  # characters: no line is folded
LONGEST_CELL = 1_000  # characters
HubOption = Annotated[Path, typer.Option("--hub", help="Folder hub (a Hugging Face cache folder).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
ModelOption = Annotated[str, typer.Option("--model", metavar="REF", help="The model, as for prisma.load.")]
ImagesOption = Annotated[
    str, typer.Option("--images", metavar="DIR", help="A folder of images, or the name of a task (its test images).")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only the first N images.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 (default: a GPU if there is one).")]
OtherModelOption = Annotated[
    bool, typer.Option("--other-model", help="Take a model with other weights than the coder's, too.")
]


def out_option(help: str) -> Any:
    """`--out`, of every command: a folder. That it can be written is known before anything is read or computed."""
    return typer.Option(callback=_writable, help=help)


def _writable(out: Path | None) -> Path | None:
    if out is None:
        return None
    from prisma.files import expect_writable
    from prisma.filesystem import given

    expect_writable(folder := given(out))
    return folder


class Stopped(KeyboardInterrupt):
    """A signal told this command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def interruptible(advice: str | Callable[[], str]) -> Iterator[None]:
    """Within, Ctrl-C, SIGTERM and SIGHUP end the command: with `advice` on stderr and the exit code 128 + the signal.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. A second signal ends the command at once.
    """
    before = {number: signal.getsignal(number) for number in STOPPING} if _in_main_thread() else {}
    for number, handler in before.items():
        if number == signal.SIGINT or handler != signal.SIG_IGN:  # of SIGINT, see `serving.ending_on_signals`
            signal.signal(number, _stop)
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        print(f"prisma: stopped; {advice if isinstance(advice, str) else advice()}", file=sys.stderr)
        raise typer.Exit(128 + number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def classes_of(prompts: str) -> list[str]:
    """The classes of a CLIP from prompts that are separated by commas."""
    return [prompt.strip() for prompt in prompts.split(",") if prompt.strip()]


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
        layout.add_row(*(Text(printable(str(value), LONGEST_CELL)) for value in row.values()))
    terminal = sys.stdout.isatty()
    console = Console(file=StringIO(), force_terminal=terminal, width=None if terminal else ANY_WIDTH)
    with console.capture() as captured:
        console.print(layout)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
