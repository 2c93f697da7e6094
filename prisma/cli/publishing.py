"""`prisma publish`, `audit`: publishing mice into a folder hub, and checking what is published."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prisma.cli.shared import JsonOption, table
from prisma.errors import PrismaError

cli = typer.Typer()

TargetHub = Annotated[Path | None, typer.Option("--hub", help="Folder hub (a Hugging Face cache folder).")]


@cli.command(epilog="Example: prisma publish runs/digits my-lab/digits --hub hub")
def publish(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    hub: TargetHub = None,
    replace: Annotated[bool, typer.Option("--replace", help="Move labels that serve other weights.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a run: every checkpoint as a verified revision, the card, the curves and the manifest."""
    from prisma.publish import publish as send

    report = send(run, repo, _folder(hub), replace=replace).to_dict()
    print(json.dumps(report, indent=2) if as_json else report_text(report))


@cli.command(epilog="Example: prisma audit prisma/digits --hub hub")
def audit(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")], hub: TargetHub = None, as_json: JsonOption = False
) -> None:
    """Check that every label of a published mouse serves the weights that it states. Exit code 1 if one does not."""
    from prisma.publish import audit as check
    from prisma.repository import Published

    folder = _folder(hub)
    findings = [finding.to_dict() for finding in check(repo, folder)]
    n = len(Published(repo, folder).revisions()) - 1
    if as_json:
        print(json.dumps({"repo": repo, "checkpoints": n, "findings": findings}, indent=2))
    else:
        print(table(findings) if findings else f"{repo}: {n} checkpoints and main serve the weights that they state.")
    if findings:
        raise typer.Exit(1)


def _folder(hub: Path | None) -> Path:
    if hub is None:
        raise PrismaError(
            "expected --hub DIR, a folder hub: this version does not write to the Hugging Face Hub itself"
        )
    return hub


def report_text(report: dict[str, Any]) -> str:
    """A `prisma.publish.Report` in a sentence."""
    what = f"{report['repo']} in {report['hub']}"
    if not report["changed"]:
        return f"{what} is up to date: nothing was written."
    return f"Published {what}: main and {len(report['revisions'])} checkpoints, each read back and verified."
