"""The `prisma` command: parse, call one library function, print.

Exit codes: 0 done, 1 what was asked could not be done (one sentence on stderr), 2 wrong usage. Results go to stdout,
progress to stderr. The library is imported inside each command, so that `--help` costs no torch.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from prisma import __version__
from prisma.errors import PrismaError

cli = typer.Typer(
    name="prisma",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

HubOption = Annotated[Path, typer.Option("--hub", help="Folder hub (a Hugging Face cache folder).")]
TargetHub = Annotated[Path | None, typer.Option("--hub", help="Folder hub; made if absent.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe.")
]
DEMO_REPO = "prisma/digits"
SAME = 1e-3  # relative difference that rounding may make, in float32 and real weights of many layers


def main() -> None:
    """Entry point: what cannot be done becomes one sentence and exit code 1."""
    try:
        cli()
    except ModuleNotFoundError as error:
        _fail(f"expected the package {error.name}, found none; pip install 'prisma-vit[all]' brings it")
    except (PrismaError, OSError) as error:
        _fail(str(error))


def _fail(sentence: str) -> NoReturn:
    print(f"prisma: {sentence}", file=sys.stderr)
    sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@cli.callback()
def about(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """See how vision transformers think: train mice, publish every checkpoint, look inside."""


@cli.command(epilog="Example: prisma demo --no-app")
def demo(
    hub: HubOption = Path("hub"),
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/digits"),
    app: Annotated[bool, typer.Option(help="Open the app on the published mouse.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again, even if the run is finished.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train the digits mouse, publish it with all its checkpoints, and open the app on it."""
    from prisma.publish import publish
    from prisma.recipes import recipe
    from prisma.train import is_finished, is_run, train

    if fresh and is_run(out):
        shutil.rmtree(out)
    if is_finished(out) and not as_json:
        print(f"Reusing the finished run in {out} (prisma demo --fresh trains again).")
    with _interruptible("prisma demo goes on from here"):
        results = train(recipe("digits"), out, resume=is_run(out), command="prisma train digits")
        report = publish(out, DEMO_REPO, hub, replace=True).to_dict()
    if as_json:
        print(json.dumps({"results": results, "published": report}, indent=2))
    else:
        print(f"{_results_table(results)}\n{_published(report)}")
    if app:
        _serve(hub, DEMO_REPO, None)


@cli.command(epilog="Example: prisma mice --json")
def mice(as_json: JsonOption = False) -> None:
    """List the mice that can be trained, with their architecture and what they learn."""
    from prisma.data import task
    from prisma.recipes import RECIPES

    rows = [
        {
            "mouse": r.name,
            "layers": r.model.n_layers,
            "heads": r.model.n_heads,
            "d_model": r.model.d_model,
            "mlp": r.model.d_mlp or "attention-only",
            "steps": r.training.steps,
            "task": task(r.task).summary,
        }
        for r in RECIPES.values()
    ]
    print(json.dumps(rows, indent=2) if as_json else _table(rows))


@cli.command(epilog="Example: prisma train digits --out runs/wide --set d_model=128 --set steps=500")
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name from `prisma mice`.")],
    out: Annotated[Path | None, typer.Option(help="Run folder, new or empty (default: runs/RECIPE).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in its folder.")] = False,
    settings: SettingsOption = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Also log to Weights & Biases.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a mouse. Every checkpoint, the metrics, the curves and the results land in the run folder."""
    from prisma.recipes import recipe as find
    from prisma.train import is_finished
    from prisma.train import train as run

    chosen = find(recipe).override(_settings(settings or []))
    folder = out or Path("runs") / recipe
    command = " ".join(["prisma train", recipe, *(f"--set {setting}" for setting in settings or [])])
    done = f"The run in {folder} was finished already." if is_finished(folder) else f"The run is in {folder}."
    with _interruptible(f"{command} --out {folder} --resume goes on from here"):
        results = run(chosen, folder, resume=resume, use_wandb=wandb, command=command)
    print(json.dumps(results, indent=2) if as_json else f"{done}\n{_results_table(results)}")


@cli.command("import", epilog="Example: prisma import model_51200.pth --like induction --set n_heads=4")
def import_(
    old: Annotated[Path, typer.Argument(metavar="OLD.pth", help="A checkpoint of ViT-Prisma's code of 2023.")],
    like: Annotated[str, typer.Option(metavar="RECIPE", help="Task, heads, activation: a name from `prisma mice`.")],
    out: Annotated[Path | None, typer.Option(help="Checkpoint folder, new or empty (default: OLD).")] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint folder, which `prisma.load` reads, of a mouse that ViT-Prisma published in 2023.

    Layers, widths, patches and classes are read off the tensors. What they cannot tell, the number of heads and the
    activation, is the recipe's: check both, and change them with --set.
    """
    from prisma.recipes import recipe
    from prisma.recipes.importing import import_mouse

    folder = out or old.with_suffix("")
    config = import_mouse(old, recipe(like).override(_settings(settings or [])), folder)
    if as_json:
        print(json.dumps({"folder": str(folder), "architecture": asdict(config)}, indent=2))
    else:
        print(f"The mouse is in {folder}: {config.n_layers} layers, {config.n_heads} heads, {config.activation}.")


@cli.command(epilog="Example: prisma publish runs/digits my-lab/digits --hub hub")
def publish(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
    hub: TargetHub = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let labels move to other weights.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a run: every checkpoint as a verified revision, the card, the curves and the manifest."""
    from prisma.publish import publish as send

    report = send(run, repo, _folder(hub), replace=replace).to_dict()
    print(json.dumps(report, indent=2) if as_json else _published(report))


@cli.command(epilog="Example: prisma audit prisma/digits --hub hub")
def audit(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME")], hub: TargetHub = None, as_json: JsonOption = False
) -> None:
    """Check that every label of a published mouse serves the weights that it claims. Exit code 1 if one does not."""
    from prisma.publish import audit as check
    from prisma.repository import Published

    folder = _folder(hub)
    findings = [finding.to_dict() for finding in check(repo, folder)]
    n = len(Published(repo, folder).revisions()) - 1
    if as_json:
        print(json.dumps({"repo": repo, "checkpoints": n, "findings": findings}, indent=2))
    else:
        print(_table(findings) if findings else f"{repo}: {n} checkpoints and main serve the weights they claim.")
    if findings:
        raise typer.Exit(1)


@cli.command(epilog="Example: prisma models --check timm/vit_base_patch16_224.augreg_in21k")
def models(
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="REF", help="A name (timm/..., hf/..., open_clip/...) or a saved folder."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Check at this image size, in pixels.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the families of pretrained models that load, and to what error each was verified against its own library.

    With --check, compare a model's own weights: the largest difference of its outputs and of every layer's residual
    stream, relative to the largest value there. Exit code 1 if one is above 1e-3.
    """
    if check is None:
        from prisma.pretrained.verified import proofs, summary

        rows = summary(proofs())
        print(json.dumps(rows, indent=2) if as_json else _table([_readable(row) for row in rows]))
        return
    from prisma.pretrained.opening import check as compare

    found = compare(check, image_size=image_size)
    rows = [
        {"tower": tower, "where": where, "difference": difference}
        for tower, parity in found.items()
        for where, difference in [
            *((f"layer {i}", x) for i, x in enumerate(parity.residuals)),
            ("output", parity.output),
        ]
    ]
    print(json.dumps(rows, indent=2) if as_json else _table([_readable(row) for row in rows]))
    if not all(row["difference"] <= SAME for row in rows):
        raise typer.Exit(1)


@cli.command(epilog="Example: prisma app --hub hub --model prisma/digits; prisma app --model my-clip-folder")
def app(
    hub: HubOption = Path("hub"),
    model: Annotated[str | None, typer.Option(metavar="REF", help="A mouse, or one pretrained model.")] = None,
    prompts: Annotated[str, typer.Option(help="The classes of a CLIP, separated by commas.")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the first free port from 7860.")] = None,
) -> None:
    """Serve the app on 127.0.0.1: attention, logit lens and patching over every checkpoint of a folder hub.

    Or over one pretrained model: --model a folder, timm/..., hf/..., open_clip/...; the classes of a CLIP are prompts.
    """
    _serve(hub, model, port, [prompt.strip() for prompt in prompts.split(",") if prompt.strip()])


def _serve(hub: Path, model: str | None, port: int | None, prompts: Sequence[str] = ()) -> None:
    # By name, because imports run one way: the app imports prisma, and this command only starts it.
    import_module("app.main").serve(hub, model, port=port, prompts=prompts)


def _folder(hub: Path | None) -> Path:
    if hub is None:
        raise PrismaError(
            "expected --hub DIR, a folder hub: this version does not write to the Hugging Face Hub itself"
        )
    return hub


@contextmanager
def _interruptible(advice: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise PrismaError(f"stopped; {advice}") from None


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"expected key=value, found {pair!r}", param_hint="--set")
    return {key.strip(): value.strip() for key, value in (pair.split("=", 1) for pair in pairs)}


def _published(report: dict[str, Any]) -> str:
    what = f"{report['repo']} in {report['hub']}"
    if not report["changed"]:
        return f"{what} is up to date: nothing was written."
    return f"Published {what}: main and {len(report['revisions'])} checkpoints, every one verified."


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Errors in two digits, and a dash where nothing was measured."""
    return {
        name: "-" if value is None else f"{value:.1e}" if isinstance(value, float) else value
        for name, value in row.items()
    }


def _results_table(results: dict[str, Any]) -> str:
    return _table([{**row, "value": f"{row['value']:.4f}"} for row in results["results"]])


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one shape as aligned columns under their keys."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
