"""An analysis over a data set, shard by shard: a stopped run continues after the last complete shard.

The folder of an analysis:

    analysis.json     settings, which a later run must share; where model and images came from; image names, in order
    shard-00000.npz   the result for the first `shard_size` images, and so on; each file is complete or absent
    result.npz        all shards merged along the image axis
    plot.png          the plot of the result, or of the mean over images of the first array that can be drawn, if asked
    summary.json      shapes, means and standard errors over images; written last: if present, the analysis is finished

With n processes, process k computes shards k, k + n, ...; the first process merges them when all have finished.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from prisma import __version__
from prisma.analysis.result import Result
from prisma.bounds import OWN_LIST
from prisma.checkpoint import weights_hash
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError, is_text, quoted, shown
from prisma.files import clear_leftovers_in, exclusive, expect_empty, folder_for, read_json, sha256, write_json
from prisma.filesystem import given, sentences
from prisma.launched import Processes
from prisma.progress import progress as progress_bar
from prisma.study.catalog import analysis
from prisma.study.inputs import ShardInputs
from prisma.study.merging import merge_results, save_plot, summarise
from prisma.study.options import OPTIONS
from prisma.study.together import read_once, results_together
from prisma.vit import ViT

_AnyResult = TypeVar("_AnyResult", bound=Result)
_OF = "shard"  # the name in a shard's metadata
_AGAIN = "remove it and run the same command again"
ANALYSIS, SUMMARY, RESULT, PLOT = "analysis.json", "summary.json", "result.npz", "plot.png"


@dataclass(frozen=True, eq=False)
class DatasetAnalysis:
    """An analysis of a model over the images of a data set, and the folder for its results."""

    name: str  # of the analysis, as in `catalog.ANALYSES`
    model: nn.Module  # a vision transformer; of an analysis that says so (`Analysis.networks`), any network
    pictures: Pictures
    options: Mapping[str, Any]  # every option of the analysis: `catalog.options_of`
    out: Path
    shard_size: int = 64
    provenance: Mapping[str, Any] = field(default_factory=dict)  # where model and images came from; copied to the files
    drawn: bool = True  # whether there is a plot.png, which often takes longer than the analysis of a few images

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", given(self.out))

    @property
    def shards(self) -> list[range]:
        """The image indices of each shard; one shard without images for what is read from weights alone."""
        n = len(self.pictures)
        return [range(0)] if not n else [range(i, min(i + self.shard_size, n)) for i in range(0, n, self.shard_size)]

    def shard_path(self, shard: int) -> Path:
        return self.out / f"shard-{shard:05d}.npz"

    @property
    def has_results(self) -> bool:
        """Whether the folder holds a summary or a shard."""
        return (self.out / SUMMARY).is_file() or any(self.out.glob("shard-*.npz"))

    def settings(self) -> dict[str, Any]:
        """Everything that results depend on. Device and batch size are left out: they do not change results."""
        return {
            "prisma": __version__,
            "analysis": self.name,
            "model_sha256": model_hash(self.model),
            "images": len(self.pictures),
            "images_sha256": self.pictures.sha256,
            "shard_size": self.shard_size,
            **self.options,
            **{
                f"{name}_sha256": sha256(given(path))
                for name, path in self.options.items()
                if path is not None and OPTIONS[name].file
            },
        }


def run_dataset_analysis(
    job: DatasetAnalysis, *, batch: int | None = None, processes: Processes | None = None, progress: bool = True
) -> dict[str, Any]:
    """Compute the shards that are missing, and merge all shards.

    Args:
        batch: the largest number of images in one pass; by default the analysis chooses.
        processes: the processes that share the shards; each of them must call this function.
        progress: show a progress bar on stderr (in the first process only).

    Returns:
        The content of `summary.json`.

    Raises:
        PrismaError: the folder holds something else, or the same analysis with other settings (the first that differs
            is named); another run is writing to it; a file could not be written; or an error of the analysis itself.
    """
    return run_dataset_analyses([job], batch=batch, processes=processes, progress=progress)[0]


def run_dataset_analyses(
    jobs: Sequence[DatasetAnalysis],
    *,
    batch: int | None = None,
    processes: Processes | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Several analyses of the same model and images, each in a folder of its own, shard after shard for all of them.

    Pictures are read once, and analyses of class space share their runs (`together`). Arguments, errors and each of the
    results are those of `run_dataset_analysis`.
    """
    if any(job.shard_size < 1 for job in jobs) or (batch is not None and batch < 1):
        raise PrismaError(
            "expected shards and passes of one image or more; found "
            f"shard_size={min(job.shard_size for job in jobs)} and batch={batch}"
        )
    processes = Processes() if processes is None else processes
    with ExitStack() as folders:
        checks = [folders.enter_context(_output_folder(job)) for job in jobs if processes.is_first]
        processes.barrier()  # until the folders exist
        todo = [job for job in jobs if not (job.out / SUMMARY).is_file()]
        if todo:
            _compute_shards(todo, batch, processes, progress, checks)
            processes.barrier()  # until every shard exists
            for job in todo if processes.is_first else ():
                _all(checks)
                _write_result(job)
            processes.barrier()  # until the summaries exist
    return [read_summary(job.out / SUMMARY) for job in jobs]


def _all(checks: Iterable[Callable[[], None]]) -> None:
    """Check that the folders are still this run's own; a process that does not hold their locks has no checks."""
    for check in checks:
        check()


def _compute_shards(
    jobs: Sequence[DatasetAnalysis],
    batch: int | None,
    processes: Processes,
    progress: bool,
    checks: Sequence[Callable[[], None]],
) -> None:
    """Compute those shards of this process that have no file yet."""
    own = list(enumerate(jobs[0].shards))[processes.rank :: processes.count]
    missing = [(i, rows, [job for job in jobs if not job.shard_path(i).is_file()]) for i, rows in own]
    missing = [shard for shard in missing if shard[2]]
    total, remaining = sum(len(rows) for _, rows in own), sum(len(rows) for _, rows, _ in missing)
    settings = {job.name: _settings_hash(job) for job in jobs} if missing else {}
    kept: dict[str, dict[str, Any]] = {job.name: {} for job in jobs}
    found = read_once(jobs[0].pictures) if len(jobs) > 1 else jobs[0].pictures
    shown, names = progress and processes.is_first, ", ".join(job.name for job in jobs)
    with progress_bar(total, names, "image", done=total - remaining, shown=shown) as bar:
        for i, rows, some in missing:
            inputs = {j.name: ShardInputs(j.model, found, rows, j.options, batch, kept[j.name]) for j in some}
            results = results_together(inputs)
            _all(checks)
            for job in some:
                of_shard = {_OF: _shard_of(settings[job.name], rows)}
                result = results[job.name]
                replace(result, metadata={**result.metadata, **of_shard}).to_npz(job.shard_path(i))
            bar.update(len(rows))


@contextmanager
def _output_folder(job: DatasetAnalysis) -> Iterator[Callable[[], None]]:
    """Create the folder with its `analysis.json`, and lock it. Remove both again if the first shard fails."""
    out, settings = job.out, job.settings()
    _expect_own_or_empty(out)
    with sentences(out), folder_for(out), exclusive(out, f"analyze in {out}") as expect_alone:
        _expect_own_or_empty(out)  # again: what came before the lock may be there now
        clear_leftovers_in(out)
        if job.has_results:
            found = read_json(out / ANALYSIS, OWN_LIST).get("settings")
            if not isinstance(found, dict):
                raise PrismaError(
                    f"expected the settings of an analysis in {out / ANALYSIS}; found something else: remove the "
                    "folder, or use another --out"
                )
            _expect_same(found, settings, job.options, out)
        else:
            names = list(job.pictures.names)
            write_json(out / ANALYSIS, {"settings": settings, **job.provenance, "images": names})
        try:
            yield expect_alone
        finally:
            if not job.has_results:
                (out / ANALYSIS).unlink(missing_ok=True)


def _expect_own_or_empty(out: Path) -> None:
    """Raise PrismaError unless `out` is absent, empty, or the folder of an analysis."""
    if not (out / ANALYSIS).is_file():
        try:
            expect_empty(out)
        except PrismaError as error:
            raise PrismaError(f"{error}; use another --out") from None


def _expect_same(found: Mapping[str, Any], expected: Mapping[str, Any], options: Mapping[str, Any], out: Path) -> None:
    """Raises PrismaError, naming the first setting that differs, and how to continue what is there."""
    for name in (*expected, *found):
        if (here := expected.get(name)) != (there := found.get(name)):
            word = shlex.quote(f"{name}={shown(there)}")
            is_option = name in options and isinstance(there, str | int | float) and is_text(word)
            again = f", or continue it with --set {word}" if is_option else ""
            raise PrismaError(
                f"{out} holds an analysis with {shown(name)}={quoted(there)}; this one has {quoted(here)}: use another "
                f"--out{again}"
            )


def _write_result(job: DatasetAnalysis) -> None:
    """Write the merged result, its plot, and last the summary."""
    kind = analysis(job.name).result
    settings = _settings_hash(job)
    parts = [_read_shard(kind, job.shard_path(i), _shard_of(settings, rows)) for i, rows in enumerate(job.shards)]
    result = merge_results(parts, job.options)
    result.to_npz(job.out / RESULT)
    has_plot = job.drawn and save_plot(result, job.out / PLOT)
    summary = {
        "analysis": job.name,
        **job.provenance,
        "images": len(job.pictures),
        "options": dict(job.options),
        "files": [RESULT, *([PLOT] if has_plot else [])],
        "arrays": summarise(result),
    }
    write_json(job.out / SUMMARY, summary)


def _settings_hash(job: DatasetAnalysis) -> str:
    return hashlib.sha256(json.dumps(job.settings(), sort_keys=True).encode()).hexdigest()


def _shard_of(settings: str, rows: range) -> str:
    """What a shard states that it is, so that one in the place of another is seen."""
    return f"images {rows.start} to {rows.stop - 1} with settings {settings}"


def _read_shard(kind: type[_AnyResult], path: Path, expected: str) -> _AnyResult:
    """A shard's result, without its note of what it is. Raises PrismaError if it is damaged or another's."""
    try:
        result = kind.from_npz(path)
    except PrismaError as error:
        raise PrismaError(f"{error}: {_AGAIN}") from None
    metadata = dict(result.metadata)
    if (found := metadata.pop(_OF, None)) != expected:
        raise PrismaError(f"expected the shard for {expected} at {path}; found {quoted(found, 120)}: {_AGAIN}")
    return replace(result, metadata=metadata)


def read_summary(path: Path) -> dict[str, Any]:
    """The content of `summary.json`. Raises PrismaError unless it is what `run_dataset_analysis` writes."""
    found = read_json(path)
    try:
        for name, kind in {"analysis": str, "images": int, "options": dict, "files": list, "arrays": dict}.items():
            _expect_kind(found[name], kind)
        for file in found["files"]:
            _expect_kind(file, str)
        for array in found["arrays"].values():
            for axis in array["axes"]:
                _expect_kind(axis, str)
            _expect_kind(array["shape"], list)
    except (KeyError, TypeError):
        raise PrismaError(f"expected the summary of an analysis in {path}; found something else: {_AGAIN}") from None
    return found


def _expect_kind(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError


def model_hash(model: nn.Module) -> str:
    """SHA-256 of the architecture and all weights; the same on every device."""
    architecture = json.dumps(asdict(model.config)) if isinstance(model, ViT) else repr(model)
    return hashlib.sha256(f"{architecture}\n{weights_hash(model.state_dict())}".encode()).hexdigest()
