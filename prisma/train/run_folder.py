"""A run's folder: how it begins, how it is found again, how it ends. `docs/architecture.md` lists its files."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import to_safetensors
from prisma.data.task import Split, Task
from prisma.errors import PrismaError
from prisma.files import expect_empty, read_json, write_atomic, write_json
from prisma.repository import PROBE
from prisma.train.provenance import RECIPE, expect_same

RESULTS = "results.json"
PROBE_IMAGES = 64
CHECKPOINTS = "checkpoints"


def start(out: Path, description: Mapping[str, Any]) -> None:
    """Begin a run with its `recipe.json`, in a folder that may be there but must be empty.

    Raises:
        PrismaError: there is something at `out` already, or it could not be written.
    """
    try:
        expect_empty(out)
    except PrismaError as error:
        raise PrismaError(f"{error}; use --resume or another --out") from None
    write_json(out / RECIPE, description)


def write_probe(out: Path, data: Task) -> None:
    """Write the probe images, unless they are there: the same for every checkpoint, and for every run of a task."""
    if not (out / PROBE).is_file():
        probe = probe_images(data.splits["test"])
        write_atomic(out / PROBE, to_safetensors({"images": probe.images, "labels": probe.labels}, {}))


def expect_run(out: Path, description: Mapping[str, Any]) -> None:
    """Check that `out` holds this run, and note in `recipe.json` where it goes on, if that is another environment.

    Raises:
        PrismaError: there is no run, or it is of another recipe (the first setting that differs is named).
    """
    if not is_run(out):
        raise PrismaError(f"expected a run to resume at {out}, found no {RECIPE}; train without --resume")
    found = read_json(out / RECIPE)
    expect_same(found, dict(description), out)
    here = {key: description[key] for key in ("environment", "git")}
    trained = [found, *found.get("resumed", [])][-1]
    if not is_finished(out) and any(trained.get(key) != value for key, value in here.items()):
        write_json(out / RECIPE, {**found, "resumed": [*found.get("resumed", []), here]})


def is_run(out: Path) -> bool:
    """Whether `out` holds a run, finished or not; `recipe.json` is there from its first moment."""
    return (out / RECIPE).is_file()


def is_finished(out: Path) -> bool:
    """Whether `out` holds a run that has come to its end; `results.json` is the last file to be written."""
    return (out / RESULTS).is_file()


def checkpoint_folder(out: Path, step: int) -> Path:
    """Sorted by name is sorted by step."""
    return out / CHECKPOINTS / f"step-{step:06d}"


def forget_from(out: Path, step: int) -> None:
    """Remove the checkpoints of this step and later: the run goes on from here and makes them again."""
    for folder in sorted((out / CHECKPOINTS).glob("step-*"), reverse=True):
        if folder >= checkpoint_folder(out, step):
            shutil.rmtree(folder)


def probe_images(split: Split, n: int = PROBE_IMAGES) -> Split:
    """The first images of each class, classes in turn: label 0, 1, ..., 0, 1, ..."""
    seen: dict[int, int] = {}
    turns: list[tuple[int, int, int]] = []
    for i, label in enumerate(split.labels.tolist()):
        turns.append((seen.get(label, 0), label, i))
        seen[label] = seen.get(label, 0) + 1
    chosen: Tensor = torch.tensor([i for _, _, i in sorted(turns)[:n]])
    return Split(split.images[chosen], split.labels[chosen])
