"""Starting and resuming a run: its folder, and its newest state, from which training continues exactly."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim import AdamW

from prisma.checkpoint import read_tensors, to_safetensors
from prisma.errors import PrismaError
from prisma.files import expect_empty, read_json, write_atomic, write_json
from prisma.run_folder import RECIPE, checkpoint_folder, checkpoint_folders, is_finished, is_run
from prisma.train.provenance import expect_same
from prisma.vit import ViT

_WEIGHT = "weight"


def start(out: Path, description: Mapping[str, Any]) -> None:
    """Begin a run: write `recipe.json` into a new or empty folder.

    Raises:
        PrismaError: `out` is a file or holds something already, or it could not be written.
    """
    try:
        expect_empty(out)
    except PrismaError as error:
        raise PrismaError(f"{error}; use --resume or another --out") from None
    write_json(out / RECIPE, description)


def resume(out: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Check that `out` holds this run. If the environment has changed, add the new one to `recipe.json`.

    Returns:
        The description, with the id that the run has: another version of Prisma may compute another id.

    Raises:
        PrismaError: there is no run, or one of another recipe (the first setting that differs is named).
    """
    if not is_run(out):
        raise PrismaError(f"expected a run to resume at {out}; found no {RECIPE}; train without --resume")
    found = read_json(out / RECIPE)
    expect_same(found, dict(description), out)
    here = {key: description[key] for key in ("environment", "git")}
    last = [found, *found.get("resumed", [])][-1]
    if not is_finished(out) and any(last.get(key) != value for key, value in here.items()):
        write_json(out / RECIPE, {**found, "resumed": [*found.get("resumed", []), here]})
    return {**description, "run": found.get("run")}


def remove_checkpoints(out: Path, step: int) -> None:
    """Remove the checkpoints from this step on: the run continues from here and makes them again."""
    for folder in reversed(checkpoint_folders(out)):
        if folder >= checkpoint_folder(out, step):
            shutil.rmtree(folder)


def save_state(path: Path, model: ViT, optimizer: AdamW, step: int, run: str) -> None:
    """Write `weight.NAME` and Adam's `step.NAME`, `exp_avg.NAME` and `exp_avg_sq.NAME`, atomically.

    Raises:
        PrismaError: the file could not be written; the previous one is unchanged.
    """
    parts = {
        name: {_WEIGHT: parameter, **optimizer.state.get(parameter, {})} for name, parameter in model.named_parameters()
    }
    tensors = {f"{kind}.{name}": x for name, part in parts.items() for kind, x in part.items()}
    write_atomic(path, to_safetensors(tensors, {"step": str(step), "run": run}))


def load_state(path: Path, model: ViT, optimizer: AdamW, run: str) -> int:
    """Restore model and optimizer as `save_state` saved them, and return the step.

    Raises:
        PrismaError: the file is absent, truncated or foreign, or belongs to another run.
    """
    tensors, header = read_tensors(path)
    if header.get("run") != run:
        raise PrismaError(f"expected the state of run {run} in {path}; found that of {header.get('run')}")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    if missing := sorted({f"{_WEIGHT}.{name}" for name in order} - set(tensors)):
        raise PrismaError(f"{path} lacks {missing[0]}")
    model.load_state_dict({name: tensors[f"{_WEIGHT}.{name}"] for name in order})
    kinds = {key.split(".", 1)[0] for key in tensors} - {_WEIGHT}  # none before the first update
    state = {i: {kind: tensors[f"{kind}.{name}"] for kind in kinds} for i, name in enumerate(order)} if kinds else {}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(header["step"])
