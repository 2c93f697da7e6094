"""A run's folder: the names of its files, and reading and checking them. `docs/architecture.md` describes each file.

`prisma.train` writes a run and `prisma.publish` reads it; both take the names and the checkpoint schedule from here.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prisma.bounds import METRICS as METRICS_BYTES
from prisma.bounds import expect_within
from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint
from prisma.errors import PrismaError, by_number, listed, shown
from prisma.fields import conform
from prisma.files import LOCK, read_json
from prisma.filesystem import remove
from prisma.headlines import HEADLINES, objective_of
from prisma.reading import parse_json, read_bytes

RECIPE = "recipe.json"
PROBE = "probe.safetensors"
METRICS = "metrics.jsonl"
STATE = "state.safetensors"
CHECKPOINTS = "checkpoints"
MEAN = "ema"
"""In the folder of a checkpoint: the folder of one with the running mean of the weights, if the recipe has it."""
RESULTS = "results.json"
HASHES = "hashes.json"
CURVES = "curves"
WEIGHT_NORM, GRADIENT_NORM, HEADS = "weight_norm", "gradient_norm", "heads"
"""What a line of `metrics.jsonl` has at a checkpoint beside losses and accuracies; earlier versions had none."""
DYNAMICS = "dynamics"
CURVE_FORMATS = ("png", "svg")
ADDED_FILES = (f"{CURVES}/{DYNAMICS}.png",)
"""More of them, which runs of earlier versions lack."""

_TRACES = (RECIPE, PROBE, METRICS, STATE, CHECKPOINTS, RESULTS, HASHES)  # names that only a run has

LAST_POWER = 512  # the last checkpoint at a power of two


def curve_kinds(recipe: Mapping[str, Any]) -> tuple[str, str]:
    """The numbers of a run that are drawn over its steps, each in a picture. Raises PrismaError as `objective_of`."""
    return "loss", HEADLINES[objective_of(recipe)]


def needed_files(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of a finished run, beside its checkpoints; all are published. Raises PrismaError as `objective_of`."""
    curves = (f"{CURVES}/{kind}.{ending}" for kind in curve_kinds(recipe) for ending in CURVE_FORMATS)
    return (CONFIG, WEIGHTS, METRICS, RECIPE, RESULTS, PROBE, *curves)


def is_run(run: Path) -> bool:
    """Whether `run` holds a run, finished or not: `recipe.json` is its first file."""
    return (run / RECIPE).is_file()


def is_finished(run: Path) -> bool:
    """Whether `run` holds a finished run: `results.json` is its last file."""
    return (run / RESULTS).is_file()


def final_files(run: Path) -> tuple[str, ...]:
    """The names of the files of a finished run, beside its checkpoints: all that are published.

    Raises:
        PrismaError: its recipe cannot be read.
    """
    return (*needed_files(read_recipe(run)), *(name for name in ADDED_FILES if (run / name).is_file()))


def has_traces(run: Path) -> bool:
    """Whether `run` holds anything of a run, perhaps of one that lost its `recipe.json`."""
    return any(os.path.lexists(run / name) for name in _TRACES)


def read_recipe(run: Path) -> dict[str, Any]:
    """The content of `recipe.json`.

    Raises:
        PrismaError: it is lost or damaged; the message says what is left of the run and what can be done with it.
    """
    try:
        return read_json(run / RECIPE)
    except PrismaError as error:
        left = checkpoint_folders(run)
        rest = f"its {len(left)} checkpoints can still be loaded, the last from {left[-1]}" if left else "no checkpoint"
        raise PrismaError(
            f"{error}: a run without its {RECIPE} can be neither resumed nor published: restore the file, or train "
            f"into another folder; what is left: {rest}"
        ) from None


def expect_finished(run: Path) -> None:
    """Raise PrismaError unless `run` holds a finished run with all its files."""
    if not run.is_dir():
        raise PrismaError(f"expected a run folder at {run}; found none; `prisma train` makes one")
    recipe = read_recipe(run) if has_traces(run) else {}
    if not is_finished(run):
        raise PrismaError(
            f"expected a finished run at {run}; found no {RESULTS}; finish it with `prisma train --resume`"
        )
    for name in needed_files(recipe):
        if not (run / name).is_file():
            raise PrismaError(f"expected {name} in the run {run}; found no such file: restore it, or train again")


def read_results(run: Path) -> dict[str, Any]:
    """The content of `results.json`.

    Raises:
        PrismaError: it does not hold the results of a run.
    """
    found = read_json(run / RESULTS)
    rows, kinds = found.get("results"), {"name": str, "value": float, "split": str, "n": int}
    try:
        if not (isinstance(rows, list) and rows and isinstance(found.get("seeds"), dict)):
            raise ValueError("no list of results, or no seeds")
        for row in rows:
            for name, kind in kinds.items():
                conform(name, row[name], kind)
            if row["n"] < 1:
                raise ValueError(f"a number of {row['n']} images")
            if row["name"].endswith("accuracy") and not 0 <= row["value"] <= 1:
                raise ValueError(f"an accuracy of {row['value']:g}")
            if row["name"].endswith("r2") and row["value"] > 1:
                raise ValueError(f"an R² of {row['value']:g}")
    except (KeyError, TypeError, ValueError) as error:
        raise PrismaError(
            f"expected the results and seeds of a run in {run / RESULTS}; found something else "
            f"({shown(str(error), 200)}): restore the file, or remove it and finish the run again with `prisma train "
            "--resume`"
        ) from None
    return found


def remove_run(run: Path) -> None:
    """Remove the files of a run. `recipe.json` goes last, so that what a kill leaves is still a run."""
    for entry in sorted(run.iterdir(), key=lambda entry: (entry.name == RECIPE, entry.name)):
        if entry.name != LOCK:
            remove(entry)


def checkpoint_steps(steps: int, every: int) -> tuple[int, ...]:
    """The steps with a checkpoint: 0, 1, 2, 4, ... 512, then the multiples of `every`, and always the last step.

    Raises:
        PrismaError: a schedule without steps, or with more checkpoints than a run may have.
    """
    expect_within("steps", steps)
    expect_within("checkpoint_every", every)
    expect_within("checkpoints", steps // every, "the number of checkpoints, steps / checkpoint_every,")
    powers = [0, *(2**i for i in range(LAST_POWER.bit_length()))]
    early = [step for step in powers if step < steps]
    return (*early, *(step for step in range(every, steps, every) if step > LAST_POWER), steps)


def revision_of(step: int) -> str:
    """The name of a step's checkpoint, 128 -> `step-000128`: padded, so that names sort up to a million steps."""
    return f"step-{step:06d}"


def step_in(text: object) -> int | None:
    """The step that a text states in at most 19 digits; None if it states none."""
    if isinstance(text, str) and len(text) < 20 and text.isascii() and text.isdecimal():
        return int(text)
    return None


def _step_of(folder: Path) -> int | None:
    """The step whose checkpoint a path is; None if it is no folder of such a name, such as `step-000004-backup`."""
    step = step_in(folder.name.removeprefix("step-"))
    return step if step is not None and folder.name == revision_of(step) and folder.is_dir() else None


def checkpoint_folder(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / CHECKPOINTS / revision_of(step)


def checkpoint_folders(run: Path, start: int = 0) -> list[Path]:
    """The checkpoints of the steps from `start` on that are there, in step order, whether or not they are scheduled."""
    steps = {folder: _step_of(folder) for folder in (run / CHECKPOINTS).glob("step-*")}
    found = sorted((step, folder) for folder, step in steps.items() if step is not None and step >= start)
    return [folder for _, folder in found]


def scheduled_steps(run: Path, recipe: Mapping[str, Any]) -> tuple[int, ...]:
    """The steps with a checkpoint of a run: to the last of its schedule, or to that at which it stopped early.

    Args:
        recipe: the content of `recipe.json`.

    Raises:
        PrismaError: the recipe states no schedule, or a stop that is not one of its steps.
    """
    try:
        training = recipe["training"]
        steps, every = (conform(name, training[name], int) for name in ("steps", "checkpoint_every"))
        scheduled = checkpoint_steps(steps, every)
        if (stopped := recipe.get("stopped")) is None:
            return scheduled
        return scheduled[: scheduled.index(conform("stopped", stopped["step"], int)) + 1]
    except (KeyError, TypeError, ValueError) as error:
        raise PrismaError(
            f"expected the training settings of a run in {run / RECIPE}; found others ({shown(str(error), 200)})"
        ) from None


def scheduled_folders(run: Path, recipe: Mapping[str, Any]) -> list[Path]:
    """The checkpoints of the run's schedule, in step order.

    Raises:
        PrismaError: one of them is missing, there is one more, or the recipe states no schedule.
    """
    wanted = [revision_of(step) for step in scheduled_steps(run, recipe)]
    found = {path.name for path in checkpoint_folders(run)}
    if odd := found.symmetric_difference(wanted):
        raise PrismaError(
            f"expected the {len(wanted)} checkpoints of its schedule in {run}; found {len(found)}: "
            f"{'not in the schedule' if odd <= found else 'missing'}: {listed(sorted(odd, key=by_number))}"
        )
    return [run / CHECKPOINTS / name for name in wanted]


def read_step(run: Path, folder: Path, run_id: str | None) -> Checkpoint:
    """One checkpoint of a run, checked.

    Args:
        run_id: the run that the header of its weights must name.

    Raises:
        PrismaError: it is not a checkpoint, its weights belong to another step or run or are not finite, or its
            `config.json` differs from the run's.
    """
    checkpoint = read_checkpoint(folder)
    header = checkpoint.header
    step = step_in(header.get("step"))
    if step is None or revision_of(step) != folder.name:
        raise PrismaError(
            f"expected weights of {folder.name} in {folder}; found those of step {shown(header.get('step'))}"
        )
    if header.get("run") != run_id:
        raise PrismaError(
            f"expected weights of run {shown(run_id)} in {folder}; found those of run {shown(header.get('run'))}"
        )
    finished = (run / CONFIG).is_file()  # while a run trains, it has none yet
    if finished and read_bytes(folder / CONFIG) != read_bytes(run / CONFIG) and _content(checkpoint) != _content(run):
        raise PrismaError(f"expected the same {CONFIG} in {folder} and {run}; found two that differ")
    broken = [name for name, x in checkpoint.model.state_dict().items() if not x.isfinite().all()]
    if broken:
        raise PrismaError(f"expected finite weights in {folder}; found infinite ones or NaN in {listed(broken)}")
    return checkpoint


def _content(source: Checkpoint | Path) -> tuple[Any, ...]:
    """What a `config.json` states; the same for one that another version of Prisma wrote with other field names."""
    checkpoint = read_checkpoint(source) if isinstance(source, Path) else source
    return checkpoint.model.config, checkpoint.labels, checkpoint.transform


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, in step order.

    Raises:
        PrismaError: no such file, or a line (its number is given) is not a JSON object, such as a torn last one.
    """
    lines = read_bytes(path, METRICS_BYTES).removesuffix(b"\n").split(b"\n")
    return [read_line(path, i, line) for i, line in enumerate(lines) if line or i]


def read_metrics_so_far(path: Path) -> list[dict[str, Any]]:
    """The same of a run that trains or was killed: its last line may be torn, and does not count then."""
    lines = read_bytes(path, METRICS_BYTES).split(b"\n")[:-1]
    return [read_line(path, i, line) for i, line in enumerate(lines)]


def read_line(path: Path, i: int, line: bytes) -> dict[str, Any]:
    """The line with index `i` of a `metrics.jsonl`. Raises PrismaError, which names it, unless it is a JSON object."""
    try:
        values = parse_json(line.decode(), f"line {i + 1} of {path}")
    except UnicodeDecodeError as error:
        raise PrismaError(
            f"expected text in UTF-8 in line {i + 1} of {path}; found the byte 0x{line[error.start]:02x} at "
            f"{error.start}"
        ) from None
    if not isinstance(values, dict):
        raise PrismaError(f"expected a JSON object on every line of {path}; found {shown(values)} on line {i + 1}")
    return values


def read_all_metrics(run: Path, last: int) -> list[dict[str, Any]]:
    """The metrics of a finished run. Raises PrismaError unless there is a line for every step from 0 to `last`."""
    lines = read_metrics(run / METRICS)
    if [line.get("step") for line in lines] != list(range(last + 1)):
        raise PrismaError(
            f"expected a line for every step from 0 to {last} in {run / METRICS}; found {len(lines)} lines"
        )
    return lines
