"""`prisma mechanism`: what the parts of a mouse do, as a page and as a section of its model card."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prisma.cli.publishing import Sign, TargetHub
from prisma.cli.shared import JsonOption, interruptible

if TYPE_CHECKING:
    from prisma.mechanisms import Mechanism

cli = typer.Typer()
PARTIAL = ".mechanism.partial.json"


@cli.command(epilog="Example: prisma mechanism my-lab/digits --hub hub; prisma mechanism runs/digits --limit 512")
def mechanism(
    model: Annotated[
        str, typer.Argument(metavar="MOUSE", help="OWNER/NAME, a run folder, a published folder, or mice/NAME.")
    ],
    hub: TargetHub = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the files (default: that of the mouse, else runs/mechanism-NAME)."),
    ] = None,
    limit: Annotated[int, typer.Option(min=16, help="Test images, drawn at random.")] = 256,
    pairs: Annotated[int, typer.Option(min=8, help="Pairs of test images, and of training images.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    sign: Sign = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the findings and what would be written; write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what the parts of a mouse do, and write it into its card.

    Head scores, lens, patching, circuit and training dynamics, each beside what happens when the part is taken away.
    It writes mechanism.md, mechanism.json and pictures, and a section Mechanism into the model card: README.md of the
    folder, or of main of a published mouse, which gets all in one commit. If it is stopped, the same command goes on.
    """
    from prisma.errors import PrismaError, expect_packages
    from prisma.filesystem import given
    from prisma.mechanisms import mechanism as measure
    from prisma.mechanisms.subject import subject
    from prisma.pretrained.loading import is_folder
    from prisma.publish.mechanism_card import expect_own_files, publish_mechanism, write_mechanism

    expect_packages("matplotlib", extra="analysis")
    mouse = subject(model, hub)
    in_place = hub is None and is_folder(model)
    published = not in_place and (hub is not None or not model.startswith("mice/"))
    if in_place:
        expect_own_files(given(model))
    if sign is not None and not published:
        raise PrismaError("expected --sign with a published mouse, OWNER/NAME; found it with a folder")
    folder = given(out) if out else given(model) if in_place else Path("runs") / f"mechanism-{Path(mouse.name).name}"
    if folder.exists() and not folder.is_dir():
        raise PrismaError(f"expected a folder for the files at {folder}; found a file")
    kept = None if dry_run else folder / PARTIAL
    with interruptible(f"{shlex.join(['prisma', *sys.argv[1:]])} continues from here"):
        card = measure(mouse, limit=limit, pairs=pairs, seed=seed, kept=kept, say=_on_stderr)
        written = [] if dry_run else [str(path) for path in write_mechanism(card, folder)]
        done = [f"Wrote {', '.join(written)}."] if written else [f"It would be written to {folder}."]
        if published:
            report = publish_mechanism(card, model, hub, sign=sign, dry_run=dry_run)
            done.append(_published(report.changed, report.files, model))
    print(card.to_json().decode() if as_json else _told(card))
    for line in done:
        _on_stderr(line)


def _on_stderr(line: str) -> None:
    print(f"prisma: {line}", file=sys.stderr)


def _published(changed: bool, files: tuple[str, ...], repo: str) -> str:
    if not files:
        return f"{repo} has this mechanism card already: nothing was written there."
    names = ", ".join(files)
    return f"Wrote into main of {repo}: {names}." if changed else f"main of {repo} would get: {names}."


def _told(card: "Mechanism") -> str:
    from prisma.mechanisms.page import told

    return told(card)
