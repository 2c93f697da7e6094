"""Starting and resuming a run: its folder, and its newest state, from which training continues exactly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from prisma.checkpoint import read_tensors, to_safetensors, weights_hash
from prisma.errors import PrismaError, quoted, shown
from prisma.files import clear_leftovers_in, expect_empty, write_atomic, write_json
from prisma.filesystem import remove
from prisma.ledger import seal, warn_unrecorded
from prisma.reading import parse_json
from prisma.run_folder import (
    MEAN,
    RECIPE,
    STATE,
    checkpoint_folders,
    has_traces,
    is_finished,
    is_run,
    read_recipe,
    step_in,
)
from prisma.train.provenance import expect_same
from prisma.train.tracking import OWN
from prisma.vit import ViT

_WEIGHT, _SEAL = "weight", "sha256"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of Adam, in the order of their names
_WHAT_NOW = "restore the file, or train again in another folder"


def expect_startable(out: Path) -> None:
    """Raise PrismaError unless `out` is absent or an empty folder. What wandb wrote before a run began is nothing."""
    try:
        expect_empty(out, OWN)
    except PrismaError as error:
        if has_traces(out):
            read_recipe(out)
        what_now = "; use --resume or another --out" if is_run(out) else ", and no run to resume; use another --out"
        raise PrismaError(f"{error}{what_now}") from None


def start(out: Path, description: Mapping[str, Any]) -> None:
    """Begin a run: write `recipe.json` into a folder that was startable when it was locked (`expect_startable`).

    Raises:
        PrismaError: it could not be written.
    """
    clear_leftovers_in(out)
    write_json(out / RECIPE, description)


def resume(out: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Check that `out` holds this run. If the environment has changed, add the new one to `recipe.json`.

    Returns:
        The description, with the id that the run has: another version of Prisma may compute another id.

    Raises:
        PrismaError: there is no run, or one of another recipe (the first setting that differs is named), or its state
            was removed.
    """
    expect_run(out)
    found = read_recipe(out)
    expect_same(found, dict(description), out)
    if not (out / STATE).is_file() and checkpoint_folders(out) and not is_finished(out):
        raise PrismaError(f"expected {STATE} beside the checkpoints of the run {out}; found no such file: {_WHAT_NOW}")
    here = {key: description[key] for key in ("environment", "git")}
    if not is_finished(out):
        clear_leftovers_in(out)
    resumed = found.get("resumed", [])
    if not (isinstance(resumed, list) and all(isinstance(place, dict) for place in resumed)):
        raise PrismaError(f"expected `resumed` in {out / RECIPE} to be a list of places; found something else")
    last = [found, *resumed][-1]
    if not is_finished(out) and any(last.get(key) != value for key, value in here.items()):
        write_json(out / RECIPE, {**found, "resumed": [*resumed, here]})
    return {**description, "run": found.get("run"), "format": found.get("format")}


def expect_run(out: Path) -> None:
    """Raise PrismaError unless a run was begun in `out`."""
    if is_run(out):
        return
    expect_startable(out)  # says what to do with a folder of something else
    raise PrismaError(f"expected a run to resume at {out}; found no {RECIPE}; train without --resume")


def remove_checkpoints(out: Path, step: int) -> None:
    """Remove the checkpoints from this step on: the run continues from here and makes them again."""
    for folder in reversed(checkpoint_folders(out, start=step)):
        remove(folder)


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: AdamW,
    step: int,
    run: str,
    files: Mapping[str, str] | None = None,
    mean: ViT | None = None,
) -> None:
    """Write `weight.NAME` and Adam's `step.NAME`, `exp_avg.NAME` and `exp_avg_sq.NAME`, atomically.

    Args:
        model: all that is trained, a decoder included.
        files: the hashes of the run's files that belong to the past of this step, for the header.
        mean: the model with the running mean of the weights: `ema.NAME`.

    Raises:
        PrismaError: the file could not be written; the previous one is unchanged.
    """
    parts = {
        name: {_WEIGHT: parameter, **optimizer.state.get(parameter, {})} for name, parameter in model.named_parameters()
    }
    tensors = {f"{kind}.{name}": x for name, part in parts.items() for kind, x in part.items()}
    tensors |= {f"{MEAN}.{name}": x for name, x in mean.named_parameters()} if mean is not None else {}
    header = {"step": str(step), "run": run, "files": json.dumps(dict(files or {}), sort_keys=True)}
    write_atomic(path, to_safetensors(tensors, {**header, _SEAL: seal(header, weights_hash(tensors))}))


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: AdamW,
    run: str,
    *,
    last: int = 2**32,
    files: dict[str, str] | None = None,
    sealed: bool = True,
    mean: ViT | None = None,
) -> int:
    """Restore model, optimizer and running mean as `save_state` saved them, and return the step.

    Args:
        last: the run's last step.
        files: gets the hashes that the header records.
        sealed: False if the run was begun by version 0.1.0, which recorded no hashes.

    Raises:
        PrismaError: the file is absent, truncated or foreign, belongs to another run, or was changed after it was
            written. Model and optimizer are as they were.
    """
    tensors, header = read_tensors(path)
    if header.get("run") != run:
        raise PrismaError(f"expected the state of run {run} in {path}; found that of {shown(header.get('run'))}")
    step = _step(header.get("step"), last, path)
    parameters = dict(model.named_parameters())
    _expect_state(tensors, parameters, step, path, mean is not None)
    if _SEAL in header or sealed:
        stated = {name: value for name, value in header.items() if name != _SEAL}
        if header.get(_SEAL) != seal(stated, weights_hash(tensors)):
            raise PrismaError(f"expected the state that training wrote in {path}; found it changed: {_WHAT_NOW}")
        (files if files is not None else {}).update(_recorded(header, path))
    else:
        warn_unrecorded(path.parent)
    names = {id(parameter): name for name, parameter in parameters.items()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    model.load_state_dict({name: tensors[f"{_WEIGHT}.{name}"] for name in parameters})
    if mean is not None:
        mean.load_state_dict({name: tensors[f"{MEAN}.{name}"] for name in parameters})
    state = {i: {kind: tensors[f"{kind}.{name}"] for kind in _MOMENTS} for i, name in enumerate(order)} if step else {}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return step


def _step(text: Any, last: int, path: Path) -> int:
    """The step that a header states. Raises PrismaError unless it is one of the run's."""
    step = step_in(text)
    if step is not None and step <= last:
        return step
    raise PrismaError(
        f"expected a step from 0 to {last} in the header of {path}; found {quoted(text, 40)}: {_WHAT_NOW}"
    )


def _recorded(header: Mapping[str, str], path: Path) -> dict[str, str]:
    """The hashes in a header. Raises PrismaError if it has none."""
    try:
        found = parse_json(header["files"], f"the header of {path}")
    except (KeyError, PrismaError):
        found = None
    if not isinstance(found, dict):
        raise PrismaError(f"expected the hashes of earlier files in the header of {path}; found none: {_WHAT_NOW}")
    return found


def _expect_state(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], step: int, path: Path, mean: bool
) -> None:
    """Raise PrismaError unless these are the weights, the mean if wanted, and after an update the moments.

    The optimizer itself would take moments of any shape and type, and its kernels would read beyond their ends.
    """
    kinds = (_WEIGHT, *((MEAN,) if mean else ()), *(_MOMENTS if step else ()))
    scalar = torch.zeros(())
    wanted = {
        f"{kind}.{name}": scalar if kind == "step" else x
        for kind in kinds
        for name, x in sorted(parameters.items())
        if x.requires_grad or kind not in _MOMENTS
    }
    for name in wanted:
        if name not in tensors:
            raise PrismaError(f"{path} lacks {name}, which the state of step {step} has: {_WHAT_NOW}")
        found, like = tensors[name], wanted[name]
        if found.shape != like.shape or found.dtype != like.dtype:
            raise PrismaError(
                f"expected {name} in {path} to be {like.dtype} {list(like.shape)}; found {found.dtype} "
                f"{quoted(list(found.shape))}: {_WHAT_NOW}"
            )
        if like is scalar and found.item() != step:
            raise PrismaError(f"expected {step} updates in {name} of {path}; found {found.item():g}: {_WHAT_NOW}")
    if odd := sorted(set(tensors) - set(wanted)):
        raise PrismaError(f"expected only the state of step {step} in {path}; found {shown(odd[0])}: {_WHAT_NOW}")
