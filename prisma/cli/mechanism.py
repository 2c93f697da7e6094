"""`prisma mechanism`: what the parts of a mouse do, as a page and as a section of its model card."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prisma.cli.publishing import Sign, TargetHub
from prisma.cli.shared import JsonOption, interruptible, out_option

if TYPE_CHECKING:
    from prisma.mechanisms import Mechanism
    from prisma.publish.mechanism_card import MechanismReport

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
        out_option("The folder for the files (default: that of the mouse, else runs/mechanism-NAME)."),
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
    from prisma.files import expect_writable
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
    folder = out or (given(model) if in_place else Path("runs") / f"mechanism-{Path(mouse.name).name}")
    if not dry_run:
        expect_writable(folder)
    kept = None if dry_run else folder / PARTIAL
    with interruptible(f"{shlex.join(['prisma', *sys.argv[1:]])} continues from here"):
        card = measure(mouse, limit=limit, pairs=pairs, seed=seed, kept=kept, say=_on_stderr)
        written = [] if dry_run else [str(path) for path in write_mechanism(card, folder)]
        done = [f"Wrote {', '.join(written)}."] if written else [f"It would be written to {folder}."]
        if published:
            report = publish_mechanism(card, model, hub, sign=sign, dry_run=dry_run)
            done.append(_published(report, model))
    if kept is not None:
        kept.unlink(missing_ok=True)  # not before all is written: killed there, the same command measures nothing
    print(card.to_json().decode() if as_json else _told(card))
    for line in done:
        _on_stderr(line)


def _on_stderr(line: str) -> None:
    print(f"prisma: {line}", file=sys.stderr)


def _published(report: "MechanismReport", repo: str) -> str:
    if not (report.files or report.removed):
        return f"{repo} has this mechanism card already: nothing was written there."
    names, old = ", ".join(report.files) or "nothing", ", ".join(report.removed)
    if report.changed:
        return f"Wrote into main of {repo}: {names}.{f' Removed: {old}.' if old else ''}"
    return f"main of {repo} would get: {names}.{f' It would lose: {old}.' if old else ''}"


def _told(card: "Mechanism") -> str:
    from prisma.mechanisms.page import told

    return told(card)
