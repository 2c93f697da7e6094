"""`prisma card`: the card of a run, and whether a card is what its data renders to."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from prisma.errors import PrismaError

cli = typer.Typer()


@cli.command(
    epilog="Example: prisma card runs/digits --repo my-lab/digits > README.md; prisma card runs/digits --check"
)
def card(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Its repository (default: the one that the card loads).")
    ] = None,
    existing: Annotated[
        Path | None,
        typer.Option("--card", help="The card that is there (default: README.md in RUN, else in hub_cards/NAME)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare, and exit with code 1 if the card is not what the data renders to.")
    ] = False,
) -> None:
    """Print the card of a run.

    It is made of the run's files alone. What a person wrote between <!-- prose --> and <!-- /prose --> in the card that
    is there stays.
    """
    from prisma.publish.checking import check_card

    checked = check_card(run, repo, existing)
    for warning in checked.warnings:
        print(f"prisma: warning: {warning}", file=sys.stderr)
    if not check:
        print(checked.text, end="")
        return
    if checked.path is None:
        raise PrismaError(f"expected a card to check, such as {run / 'README.md'}; found none: give --card FILE")
    if checked.difference:
        print(checked.difference)
        raise typer.Exit(1)
    print(f"{checked.path} is what the data of {run} renders to.")
