"""`prisma analyze`: an analysis of a model over a data set, in shards."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from prisma.cli.over_training import At, checkpoints_of, expect_array_in, expect_array_of, report
from prisma.cli.shared import (
    DeviceOption,
    JsonOption,
    LimitOption,
    classes_of,
    interruptible,
    out_option,
    settings_of,
    table,
)
from prisma.errors import NotFiniteError, PrismaError, expect_packages, nearest, printable, quoted

if TYPE_CHECKING:
    from prisma.data.pictures import Pictures
    from prisma.launched import Processes
    from prisma.loaded import Loaded
    from prisma.pretrained.networks import Network
    from prisma.study.shards import DatasetAnalysis

cli = typer.Typer()


class _Listing(TyperCommand):
    """Help that ends with a list of the analyses and their options, which are imported only for this list."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from prisma.study.catalog import ANALYSES
        from prisma.study.options import OPTIONS

        with formatter.section("Analyses (NAME), with their options and defaults"):
            formatter.write_dl([(name, f"{a.summary} {_format_options(a.options)}") for name, a in ANALYSES.items()])
        with formatter.section("Options of analyses (--set KEY=VALUE, or --metric and so on)"):
            formatter.write_dl([(name, option.help) for name, option in OPTIONS.items()])
        super().format_epilog(ctx, formatter)


@cli.command(
    cls=_Listing,
    epilog="Example: prisma analyze activation_patching --model mice/digits --images digits --metric probability",
)
def analyze(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The analysis, or several with commas: see below.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="REF", help="As for prisma.load: mice/digits, timm/..., a folder; modularity reads CNNs too."
        ),
    ],
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder of images, or a task, whose test images are used.")
    ] = None,
    hub: Annotated[Path | None, typer.Option(help="The folder hub that holds the published mouse.")] = None,
    prompts: Annotated[str, typer.Option(help="Class names for a CLIP model, separated by commas.")] = "",
    out: Annotated[Path | None, out_option("The folder for the results (default: runs/analyze-NAME).")] = None,
    limit: LimitOption = None,
    metric: Annotated[str | None, typer.Option(help="logit, probability or logit_diff.")] = None,
    target: Annotated[str | None, typer.Option(help="A class, by name or number (default: the predicted one).")] = None,
    corrupt: Annotated[str | None, typer.Option(help="other, swap, noise, blur, mean, object or inpaint.")] = None,
    site: Annotated[str | None, typer.Option(help="The activation to patch or read: attn.z, resid_post, ...")] = None,
    axis: Annotated[
        str | None, typer.Option(help="Patch each index along this axis separately: head, token, ...")
    ] = None,
    into: Annotated[str | None, typer.Option(help="The run that is patched: clean or corrupt.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option of the analysis.")
    ] = None,
    revisions: Annotated[
        str | None, typer.Option(metavar="LABELS", help="The checkpoints of a mouse: all, or labels with commas.")
    ] = None,
    array: Annotated[str | None, typer.Option(help="With --revisions: the array whose changes are looked for.")] = None,
    device: DeviceOption = None,
    batch: Annotated[int | None, typer.Option(min=1, help="The largest number of images in one pass.")] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Number of images per shard.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Run an analysis over a folder of images or a task; or several, which share what they can of their runs.

    It writes result.npz, summary.json and plot.png, of several analyses each into a folder of its name. If it is
    stopped, the same command continues from the last complete shard of images. `accelerate launch --no_python prisma
    analyze ...` shares the shards among several GPUs. With --revisions, each checkpoint of a published mouse or a run
    folder has a folder of its own, without a plot, and trajectory.npz and trajectory.png say what changed between them,
    and when; one that has diverged is named and left out.
    """
    named = {"metric": metric, "target": target, "corrupt": corrupt, "site": site, "axis": axis, "into": into}
    given = settings_of(settings or []) | {key: value for key, value in named.items() if value is not None}
    own = _own_options(name, given)
    if array is not None and revisions is None:
        raise PrismaError("expected --array together with --revisions; found it alone")
    if revisions is not None:
        expect_array_of(own, array)
    expect_packages("matplotlib", extra="analysis")
    asked = _Asked(own, model, images, hub, prompts, out, limit, shard_size, batch)
    with interruptible(f"{shlex.join(['prisma', *sys.argv[1:]])} continues from here"):
        asked.run(device, as_json) if revisions is None else asked.over_training(device, as_json, revisions, array)


@dataclass(frozen=True)
class _Asked:
    """What is analysed, and where results go."""

    own: Mapping[str, dict[str, str]]  # analysis -> the options that it is given
    model: str
    images: str | None
    hub: Path | None
    prompts: str
    out: Path | None
    limit: int | None
    shard_size: int
    batch: int | None

    def run(self, device: str | None, as_json: bool) -> None:
        """Analyse one model, and print what was found."""
        from prisma.launched import launched_processes

        with launched_processes(device) as processes:
            summaries, jobs, classes = self._analysed(self.model, None, processes)
            if processes.is_first:
                print(_reports(summaries, jobs, classes, as_json))

    def over_training(self, device: str | None, as_json: bool, revisions: str, array: str | None) -> None:
        """Analyse every checkpoint, and print what changed."""
        from prisma.launched import launched_processes

        with launched_processes(device) as processes:
            done: dict[str, dict[At, DatasetAnalysis | None]] = {name: {} for name in self.own}
            kept: dict[Any, Pictures] = {}
            for at in checkpoints_of(self.model, self.hub, revisions):
                for name, job in self._at(at, processes, kept).items():
                    if job is not None and not any(done[name].values()) and processes.is_first:
                        expect_array_in(job, array)
                    done[name][at] = job
            for name, jobs in done.items() if processes.is_first else ():
                folder = _folder(self.out, name, several=len(self.own) > 1)
                print(report(name, jobs, array, folder, as_json))

    def _at(self, at: At, processes: "Processes", kept: Any) -> "Mapping[str, DatasetAnalysis | None]":
        """What was run at one checkpoint, by name; None if it has diverged, which is said on stderr."""
        try:
            return {job.name: job for job in self._analysed(at.ref, at, processes, kept)[1]}
        except NotFiniteError as error:
            if processes.count > 1:  # the others wait for the results of this one
                raise NotFiniteError(f"{at.label}: {error}") from None
            print(f"prisma: {at.label} is left out: {error}", file=sys.stderr)
            return dict.fromkeys(self.own)

    def _analysed(
        self, ref: str, at: At | None, processes: "Processes", kept: "dict[Any, Pictures] | None" = None
    ) -> tuple[list[dict[str, Any]], "list[DatasetAnalysis]", tuple[str, ...]]:
        """(summaries, what was run, the names of the classes) of one model.

        Args:
            kept: the pictures as models read them that came before, which this one may read in the same way.
        """
        from prisma.features.models import model_of
        from prisma.study.catalog import analysis, options_of
        from prisma.study.shards import DatasetAnalysis, run_dataset_analyses
        from prisma.train.machine import pick_device

        networks = at is None and not self.prompts and all(analysis(name).networks for name in self.own)
        loaded = model_of(ref, self.hub) if networks else _loaded(ref, at, self.hub, self.prompts)
        loaded.model.to(pick_device(processes.device))
        found = self._pictures_of(loaded, kept, says=processes.is_first)
        source = _provenance(self.model, self.images, loaded.labels if self.prompts else ())
        source |= {"revision": at.label} if at else {}
        jobs = [
            DatasetAnalysis(
                one, loaded.model, found, options_of(one, _with_target_index(options, loaded.labels)),
                _folder(self.out, one, several=len(self.own) > 1) / (at.label if at else ""), self.shard_size, source,
                drawn=at is None,
            )
            for one, options in self.own.items()
        ]  # fmt: skip
        return run_dataset_analyses(jobs, batch=self.batch, processes=processes), jobs, loaded.labels

    def _pictures_of(self, loaded: "Loaded | Network", kept: "dict[Any, Pictures] | None", *, says: bool) -> "Pictures":
        """What a model reads, or what one before it read in the same way."""
        from prisma.study.together import read_once

        if kept is None:
            return _pictures(list(self.own), self.images, loaded, self.limit, says=says)
        way = (loaded.transform, getattr(loaded.model, "config", None), loaded.labels)
        if way not in kept:
            kept[way] = read_once(_pictures(list(self.own), self.images, loaded, self.limit, says=says))
        return kept[way]


def _loaded(ref: str, at: At | None, hub: Path | None, prompts: str) -> "Loaded":
    from prisma.loaded import load

    loaded = load(ref, at.revision if at else None, hub)
    classes = classes_of(prompts)
    return loaded.zero_shot(classes) if classes else loaded


def _provenance(model: str, images: str | None, prompts: Sequence[str]) -> dict[str, Any]:
    """Where the model, the images and the classes came from."""
    sources = {"model": model, "source": images or ""}
    return {**sources, **({"prompts": list(prompts)} if prompts else {})}


def _own_options(names: str, given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Analysis -> the options that it is given: of several, each takes those that it has.

    Raises:
        PrismaError: no such analysis, or one that is named twice; an option that none takes or that cannot be read.
    """
    from prisma.study.catalog import analysis, canonical_name, options_of

    asked = [canonical_name(name.strip()) for name in names.split(",")]
    if len(set(asked)) < len(asked):
        raise PrismaError(f"expected each analysis once; found {quoted(names)}")
    taken = {name: analysis(name).options for name in asked}
    own = {name: {key: given[key] for key in given if key in options} for name, options in taken.items()}
    own[asked[0]] |= {key: given[key] for key in given if not any(key in options for options in taken.values())}
    for name, options in own.items():  # before anything is loaded; the number of a target needs the model
        options_of(name, options | ({"target": "0"} if "target" in options else {}))
    return own


def _pictures(
    names: Sequence[str], ref: str | None, loaded: "Loaded | Network", limit: int | None, *, says: bool
) -> "Pictures":
    """The pictures; what is left out of their folder is said on stderr."""
    from prisma.data.pictures import no_pictures, pictures
    from prisma.study.catalog import analysis

    if ref is None:
        if needs := [name for name in names if not analysis(name).of_weights]:
            raise PrismaError(f"expected --images DIR, which {needs[0]} needs; found none")
        return no_pictures()
    found = pictures(ref, loaded.transform, loaded.input_shape, limit, loaded.labels)
    if found.left_out and says:
        print(f"prisma: left out of {printable(ref)}: {found.left_out}", file=sys.stderr)
    return found


def _with_target_index(given: dict[str, str], labels: tuple[str, ...]) -> dict[str, str]:
    """The options, with the target as a class index if it was given as a name.

    Raises:
        PrismaError: the target is neither a number nor the name of a class; the nearest names are given.
    """
    target = given.get("target")
    if target is None or (target not in labels and target.removeprefix("-").isdecimal()):
        return given
    if (times := labels.count(target)) != 1:
        found = f"; the nearest: {nearest(target, labels)}" if not times else f" {times} times: give its number"
        raise PrismaError(f"expected a class of the model; found {quoted(target)}{found}")
    return {**given, "target": str(labels.index(target))}


def _format_options(options: Mapping[str, Any]) -> str:
    return f"[{', '.join(key if value is None else f'{key}={value}' for key, value in options.items())}]"


def _folder(out: Path | None, name: str, *, several: bool) -> Path:
    """Where the results of an analysis are written."""
    if out is None:
        return Path("runs") / f"analyze-{name}"
    return out / name if several else out


def _reports(
    summaries: list[dict[str, Any]], jobs: Sequence["DatasetAnalysis"], classes: tuple[str, ...], as_json: bool
) -> str:
    if as_json:
        return json.dumps(summaries if len(jobs) > 1 else summaries[0], indent=2)
    return "\n".join(_report(summary, job, classes) for summary, job in zip(summaries, jobs, strict=True))


def _report(summary: dict[str, Any], job: "DatasetAnalysis", classes: tuple[str, ...]) -> str:
    from prisma.analysis.result import Result
    from prisma.study.catalog import analysis
    from prisma.study.shards import RESULT

    kind = analysis(job.name).result
    report = kind.from_npz(job.out / RESULT).report(classes) if kind.report is not Result.report else ""
    rows = [
        {"array": name, "axes": ", ".join(array["axes"]), "shape": "x".join(map(str, array["shape"]))}
        for name, array in summary["arrays"].items()
    ]
    files = ", ".join([*summary["files"], "summary.json"])
    over = f"over {summary['images']} images" if summary["images"] else "of the weights"
    lines = "".join(f"{printable(line)}\n" for line in report.splitlines())
    return f"{table(rows)}\n{lines}Wrote {summary['analysis']} {over} to {job.out}: {files}."
