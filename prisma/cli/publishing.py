"""`prisma publish`, `audit`: publishing mice, and checking what is published."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prisma.cli.shared import JsonOption, interruptible, table

cli = typer.Typer()

TargetHub = Annotated[
    Path | None,
    typer.Option("--hub", metavar="DIR", help="A folder hub, in place of the Hugging Face Hub."),
]


@cli.command(
    epilog="Example: prisma publish runs/digits my-lab/digits; prisma publish runs/digits my-lab/digits --hub hub"
)
def publish(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    hub: TargetHub = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let existing revisions change to this run's weights.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public once all is verified.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a run to the Hugging Face Hub, or into a folder hub.

    Every checkpoint becomes a verified revision; main gets the final weights, card, curves and manifest. A repository
    of the Hub is private until --public. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from prisma.publish import publish as send

    with interruptible("to go on, run the same command again"):
        report = send(run, repo, hub, replace=replace, public=public).to_dict()
    print(json.dumps(report, indent=2) if as_json else report_text(report))


@cli.command(
    epilog="Example: prisma audit my-lab/digits; prisma audit EleutherAI/pythia-70m; prisma audit 'lab/bert-step_*'"
)
def audit(
    repos: Annotated[list[str], typer.Argument(metavar="OWNER/NAME...", help="One or several, or OWNER/START*.")],
    hub: TargetHub = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read all bytes, one revision at a time, and compute losses again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that every revision serves the weights of its step.

    Those that Prisma published are compared with their manifest, any others with each other. Exit code 1 if something
    is wrong.
    """
    from prisma.publish.auditing import examine

    with interruptible("nothing was changed"):
        found = examine(repos, hub, deep)
    findings = [finding.to_dict() for finding in found.findings]
    if as_json:
        print(json.dumps(findings, indent=2))
    elif findings:
        print(table(findings))
    else:
        how = (
            "have the files of the manifest" if found.has_manifest else "differ from each other (there is no manifest)"
        )
        print(f"{' '.join(repos)}: {found.checkpoints} checkpoints and main {how}.")
    if findings:
        raise typer.Exit(1)


def report_text(report: dict[str, Any]) -> str:
    """A `prisma.publish.Report` in a sentence."""
    what = f"{report['repo']} in {report['hub']}"
    if not report["changed"]:
        return f"{what} is up to date: nothing was written."
    return f"Published {what}: main and {len(report['revisions'])} checkpoints, each read back and verified."
