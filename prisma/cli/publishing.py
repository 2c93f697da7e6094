"""`prisma publish`, `diff`, `yank`, `audit`: publishing mice, and checking what is published."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prisma.cli.shared import JsonOption, interruptible, table
from prisma.errors import listed

cli = typer.Typer()

TargetHub = Annotated[
    Path | None,
    typer.Option("--hub", metavar="DIR", help="A folder hub, in place of the Hugging Face Hub."),
]
What = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="A finished run folder; task:NAME, the data set of a task; a folder "
        "with a tuned lens, a sparse coder, an edited model or an edit of a language model.",
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", metavar="OWNER/NAME[@REVISION]", help="Of a lens, coder or edit: the model it is of."),
]
License = Annotated[str | None, typer.Option("--license", metavar="ID", help="Of a lens, coder or edit, such as mit.")]
Sign = Annotated[
    Path | None, typer.Option("--sign", metavar="KEY", help="Sign the manifest with this private key (a PEM file).")
]


@cli.command(
    epilog="Example: prisma publish runs/digits my-lab/digits; prisma publish task:sprites my-lab/sprites --hub hub"
)
def publish(
    what: What,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    hub: TargetHub = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let existing revisions change to this run's weights.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Publish each checkpoint while the run still trains.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public once all is verified.")] = False,
    sign: Sign = None,
    base_model: BaseModel = None,
    license: License = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done: files, bytes, commits, requests, time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a run, a data set, a lens, a coder or an edited model to the Hugging Face Hub, or into a folder hub.

    Every checkpoint of a run becomes a verified revision; main gets the final weights, card, curves and manifest. A
    repository of the Hub is private until --public. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from prisma.publish import forecast
    from prisma.publish import publish as send
    from prisma.publish import watch as follow
    from prisma.publish.things import About

    options: dict[str, Any] = {"replace": replace, "public": public, "sign": sign}
    about: dict[str, Any] = {"base_model": base_model, "license": license}
    with interruptible("to go on, run the same command again"):
        if dry_run:
            foreseen = forecast(what, repo, hub, **options, **about).to_dict()
            print(json.dumps(foreseen, indent=2) if as_json else forecast_text(foreseen))
            return
        if watch:
            About(**about).expect_none("a run")
            report = follow(what, repo, hub, **options, say=_on_stderr).to_dict()
        else:
            report = send(what, repo, hub, **options, **about).to_dict()
    for warning in report["warnings"]:
        _on_stderr(f"prisma: warning: {warning}")
    print(json.dumps(report, indent=2) if as_json else report_text(report))


@cli.command(epilog="Example: prisma diff runs/digits my-lab/digits")
def diff(
    what: What,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    hub: TargetHub = None,
    base_model: BaseModel = None,
    license: License = None,
    as_json: JsonOption = False,
) -> None:
    """Show what publishing would change. Exit code 1 if anything would."""
    from prisma.publish import diff as compare

    rows = [row.to_dict() for row in compare(what, repo, hub, base_model=base_model, license=license)]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        print(table(rows) if rows else f"{repo} serves {what}.")
    if rows:
        raise typer.Exit(1)


@cli.command(epilog='Example: prisma yank my-lab/digits step-000128 --why "trained on the test images"')
def yank(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="The label of a checkpoint.")],
    why: Annotated[str, typer.Option("--why", help="The reason, which the card will state.")],
    hub: TargetHub = None,
    sign: Sign = None,
    as_json: JsonOption = False,
) -> None:
    """Take a published checkpoint back.

    Its label becomes yanked-REVISION, so that its weights stay readable; the manifest and the card state the reason.
    The same command with another reason corrects the reason.
    """
    from dataclasses import asdict

    from prisma.publish import yank as take_back

    report = asdict(take_back(repo, revision, why, hub, sign=sign))
    if as_json:
        print(json.dumps(report, indent=2))
    elif report["changed"]:
        print(f"Yanked {revision} of {repo}; its weights are kept as {report['yanked']['moved_to']}.")
    else:
        print(f"{revision} of {repo} is yanked already.")


@cli.command(
    epilog="Example: prisma audit my-lab/digits; prisma audit EleutherAI/pythia-70m; prisma audit 'lab/bert-step_*'"
)
def audit(
    repos: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="OWNER/NAME, datasets/OWNER/NAME, or OWNER/START*; several.")
    ],
    hub: TargetHub = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read all bytes, one revision at a time, and compute losses again.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PUBLIC", help="Verify the manifest's signature by this public key.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that every revision serves the weights of its step.

    Those that Prisma published are compared with their manifest, any others with each other. Exit code 1 if something
    is wrong.
    """
    from prisma.publish.auditing import examine

    with interruptible("nothing was changed"):
        found = examine(repos, hub, deep, key=key)
    findings = [finding.to_dict() for finding in found.findings]
    if as_json:
        print(json.dumps(findings, indent=2))
    elif findings:
        print(table(findings))
    else:
        how = (
            "have the files of the manifest" if found.has_manifest else "differ from each other (there is no manifest)"
        )
        what = f"{found.checkpoints} checkpoints and main {how}"
        if found.has_manifest and not found.checkpoints:
            what = "main has the files of the manifest"
        print(f"{' '.join(repos)}: {what}{', which is signed by this key' if key else ''}.")
    if findings:
        raise typer.Exit(1)


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def forecast_text(found: dict[str, Any]) -> str:
    """A `prisma.publish.Forecast` in sentences."""
    what = f"{found['repo']} in {found['hub']}"
    warnings = [f"Warning: {warning}." for warning in found["warnings"]]
    if not found["changed"]:
        return "\n".join([f"{what} is up to date: nothing would be written.", *warnings])
    lines = [
        f"{what} would get {found['files']} files ({found['bytes'] / 1e6:,.1f} MB) in "
        f"{found['commits']} commit{'s' * (found['commits'] != 1)}"
        + (f", with about {found['requests']:,} requests" if found["requests"] else "")
        + f", in about {duration(found['seconds'])}.",
        f"New or moved revisions: {listed(found['revisions'])}.",
    ]
    if found["removed"]:
        lines.append(f"Removed revisions: {listed(found['removed'])}.")
    if not found["seen"]:
        lines.append("All counts as new, because there is no such repository to see: a private one needs a token.")
    return "\n".join(lines + warnings)


def duration(seconds: float) -> str:
    """Rounded up, in one unit."""
    unit, of = ("seconds", 1) if seconds < 100 else ("minutes", 60) if seconds < 6000 else ("hours", 3600)
    n = max(1, math.ceil(seconds / of))
    return f"{n} {unit if n > 1 else unit[:-1]}"


def report_text(report: dict[str, Any]) -> str:
    """A `prisma.publish.Report` in a sentence."""
    what = f"{report['repo']} in {report['hub']}"
    if not report["changed"]:
        return f"{what} is up to date: nothing was written."
    if not report["revisions"]:
        return f"Published {what}: every file was verified."
    return f"Published {what}: main and {len(report['revisions'])} checkpoints, each verified before it was labelled."
