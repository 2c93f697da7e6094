"""The `prisma` command: parse, call one library function, print.

Exit codes: 0 done, 1 the command could not be done (one sentence on stderr), 2 wrong usage. Results go to stdout,
progress to stderr. The library is imported inside each command, so that `--help` costs no torch.
"""

import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, NoReturn, TextIO

import typer

from prisma import __version__
from prisma.cli.analyze import cli as analyze_cli
from prisma.cli.batches import cli as batches_cli
from prisma.cli.card import cli as card_cli
from prisma.cli.editing import cli as editing_cli
from prisma.cli.features import cli as features_cli
from prisma.cli.language import cli as language_cli
from prisma.cli.mechanism import cli as mechanism_cli
from prisma.cli.mice import cli as mice_cli
from prisma.cli.models import cli as models_cli
from prisma.cli.publishing import cli as publishing_cli
from prisma.cli.serving import cli as serving_cli
from prisma.cli.smallest import cli as smallest_cli
from prisma.cli.space import cli as space_cli
from prisma.cli.sparse import cli as sparse_cli
from prisma.errors import PrismaError, PrismaWarning, printable
from prisma.filesystem import sentence as of_system

cli = typer.Typer(
    name="prisma",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (
    mice_cli,
    batches_cli,
    smallest_cli,
    publishing_cli,
    card_cli,
    mechanism_cli,
    space_cli,
    models_cli,
    analyze_cli,
    sparse_cli,
    editing_cli,
    language_cli,
    features_cli,
    serving_cli,
):
    cli.add_typer(commands)


def main() -> None:
    """Entry point: an error of the user becomes one sentence and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that is not UTF-8, or a terminal that is not
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            cli()
    except ModuleNotFoundError as error:
        _fail(f"expected the package {error.name}; found none; pip install 'prisma-vit[all]' brings it")
    except PrismaError as error:
        _fail(str(error))
    except OSError as error:
        _fail(printable(of_system(error)))


def _fail(sentence: str) -> NoReturn:
    print(f"prisma: {sentence}", file=sys.stderr)
    sys.exit(1)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of this package is a sentence; that of another says where it comes from."""
    from tqdm import tqdm

    own = issubclass(category, PrismaWarning)
    where = "" if own else f"{filename}:{lineno}: {category.__name__}: "
    tqdm.write(f"prisma: {where}{message}", file=sys.stderr)  # above a bar, not on its line


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@cli.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """See how vision transformers think: train mice (tiny models), publish every checkpoint, look inside."""
