"""`prisma space`: a Space of the Hugging Face Hub that shows published mice."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prisma.cli.shared import JsonOption, interruptible, out_option

cli = typer.Typer()

ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--models", metavar="OWNER/NAME,...", help="Published mice (@COMMIT pins one). Repeatable."),
]
ShownHub = Annotated[
    Path | None, typer.Option("--hub", help="Copy the mice of this folder hub into the Space (default: all of them).")
]


@cli.command(epilog="Example: prisma space my-lab/explorer --models my-lab/digits,my-lab/induction")
def space(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The Space.")],
    models: ModelsOption = None,
    hub: ShownHub = None,
    out: Annotated[Path | None, out_option("Only write the Space's folder, and send nothing.")] = None,
    static: Annotated[
        bool, typer.Option("--static", help="A page of precomputed views, free for all accounts.")
    ] = False,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Default: as it is; a new Space is private.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="As the Hub names it, such as zero-a10g or cpu-upgrade.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of each mouse in a static Space.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each mouse in a static Space.")] = 8,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until the Space runs.")] = 900,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written or sent, and do nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show published mice in a Space of the Hugging Face Hub.

    It is made or updated in one commit, waited for until it runs, and asked for numbers that are compared with the
    library's. With --out, its folder is written here instead: `python app.py` in it starts the app.
    """
    from prisma.publish.space import plan, send, write

    wanted = [part.strip() for text in models or () for part in text.split(",") if part.strip()]
    with interruptible("the same command continues from here"):
        planned = plan(name, wanted, hub, static=static, hardware=hardware, images=images, steps=steps)
        facts: dict[str, Any] = {
            "space": planned.space,
            "sdk": planned.sdk,
            "models": {mouse.repo: mouse.commit for mouse in planned.models},
            "files": len(planned.files),
            "bytes": planned.size,
        }
        where = f"{planned.sdk} Space {name} with {len(planned.files)} files of {planned.size:,} bytes"
        if dry_run:
            sentence = f"Would {f'write to {out}' if out else 'send'} the {where}; nothing was written or sent."
            report = {**facts, "changed": False, "dry_run": True}
        elif out is not None:
            changed = write(planned, out)
            sentence = f"Wrote the {where} to {out}." if changed else f"{out} holds the {where} already."
            report = {**facts, "out": str(out), "changed": changed}
        else:
            sent = send(planned, private=private, timeout=timeout, say=_say)
            report = sent.to_dict()
            state = "private" if sent.private else "public"
            done = "was updated" if sent.changed else "is up to date"
            sentence = f"The {state} Space {name} {done}, runs, and answers as the library: {sent.url}"
    print(json.dumps(report, indent=2) if as_json else sentence)


def _say(sentence: str) -> None:
    print(f"prisma: {sentence}", file=sys.stderr)
