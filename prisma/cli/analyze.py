"""`prisma analyze`: an analysis of a model over a data set, in shards."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from prisma.cli.shared import JsonOption, interruptible, settings_of, table
from prisma.errors import PrismaError, expect_packages, nearest

if TYPE_CHECKING:
    from prisma.loaded import Loaded

cli = typer.Typer()


class _Listing(TyperCommand):
    """Help that ends with the analyses and what each takes. They are imported only to be listed."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from prisma.study.catalog import ANALYSES, OPTIONS

        with formatter.section("Analyses (NAME), with their options and defaults"):
            formatter.write_dl([(name, f"{a.summary} {_defaults(a.options)}") for name, a in ANALYSES.items()])
        with formatter.section("Options of analyses (--set KEY=VALUE, or --metric and so on)"):
            formatter.write_dl([(name, option.help) for name, option in OPTIONS.items()])
        super().format_epilog(ctx, formatter)


@cli.command(
    cls=_Listing,
    epilog="Example: prisma analyze activation_patching --model mice/digits --images digits --metric probability",
)
def analyze(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An analysis: see below.")],
    model: Annotated[str, typer.Option(metavar="REF", help="What prisma.load takes: mice/digits, timm/..., a folder.")],
    images: Annotated[str, typer.Option(metavar="DIR", help="A folder of pictures, or a task: its test images.")],
    hub: Annotated[Path | None, typer.Option(help="Folder hub of a published mouse.")] = None,
    prompts: Annotated[str, typer.Option(help="The classes of a CLIP, separated by commas.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the analysis (default: runs/analyze-NAME).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many images.")] = None,
    metric: Annotated[str | None, typer.Option(help="logit, probability or logit_diff.")] = None,
    target: Annotated[
        str | None, typer.Option(help="A class, by name or number (default: the model's answer).")
    ] = None,
    corrupt: Annotated[str | None, typer.Option(help="other, swap, noise, blur, mean or object.")] = None,
    site: Annotated[str | None, typer.Option(help="What is patched: attn.z, resid_post, mlp_out ...")] = None,
    axis: Annotated[str | None, typer.Option(help="How it is divided: head, token, component ...")] = None,
    into: Annotated[str | None, typer.Option(help="The run that is patched: clean or corrupt.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any option of the analysis.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 (default: CUDA where there is one).")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="At most so many images in one pass.")] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Images of a shard.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Analyse a model over a folder of pictures: result.npz, summary.json and plot.png in a folder.

    It works in shards: the same command goes on where it was stopped. Many GPUs share the shards under
    `accelerate launch --no_python prisma analyze ...`.
    """
    from prisma.data.pictures import pictures
    from prisma.study.catalog import options_of
    from prisma.study.processes import team
    from prisma.study.shards import Study, run_study
    from prisma.train.loop import pick_device

    named = {"metric": metric, "target": target, "corrupt": corrupt, "site": site, "axis": axis, "into": into}
    given = settings_of(settings or []) | {key: value for key, value in named.items() if value is not None}
    options_of(name, given | ({"target": "0"} if "target" in given else {}))
    expect_packages("matplotlib")
    with interruptible(f"{shlex.join(['prisma', *sys.argv[1:]])} goes on from here"), team(device) as processes:
        loaded = _loaded(model, hub, prompts)
        loaded.model.to(pick_device(processes.device))
        study = Study(
            name=name,
            model=loaded.model,
            pictures=pictures(images, loaded.transform, loaded.config.input_shape, limit),
            options=options_of(name, _numbered(given, loaded.labels)),
            out=out or Path("runs") / f"analyze-{name}",
            shard_size=shard_size,
            said={"model": model, "source": images, **({"prompts": list(loaded.labels)} if prompts else {})},
        )
        summary = run_study(study, batch=batch, team=processes)
        if processes.first:
            print(json.dumps(summary, indent=2) if as_json else _report(summary, study.out))


def _loaded(ref: str, hub: Path | None, prompts: str) -> "Loaded":
    from prisma.loaded import load

    loaded = load(ref, hub=hub)
    classes = [prompt.strip() for prompt in prompts.split(",") if prompt.strip()]
    return loaded.zero_shot(classes) if classes else loaded


def _numbered(given: dict[str, str], labels: tuple[str, ...]) -> dict[str, str]:
    """The options, with the target by its number if it is a name.

    Raises:
        PrismaError: the target is neither a number nor the name of a class; the nearest names are given.
    """
    target = given.get("target")
    if target is None or (target not in labels and target.removeprefix("-").isdecimal()):
        return given
    if target not in labels:
        raise PrismaError(f"the model has no class {target!r}; the nearest: {nearest(target, labels)}")
    return {**given, "target": str(labels.index(target))}


def _defaults(options: Mapping[str, Any]) -> str:
    return f"[{', '.join(key if value is None else f'{key}={value}' for key, value in options.items())}]"


def _report(summary: dict[str, Any], out: Path) -> str:
    rows = [
        {"array": name, "axes": ", ".join(array["axes"]), "shape": "x".join(map(str, array["shape"]))}
        for name, array in summary["arrays"].items()
    ]
    files = ", ".join([*summary["files"], "summary.json"])
    return f"{table(rows)}\nThe {summary['analysis']} of {summary['images']} images is in {out}: {files}."
