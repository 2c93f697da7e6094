"""Training: from a recipe to a run folder that holds every checkpoint, the curves and the numbers."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from tqdm import tqdm

from prisma.checkpoint import write_checkpoint
from prisma.config import ViTConfig
from prisma.data import task
from prisma.data.task import Split
from prisma.errors import PrismaError, expect_packages
from prisma.files import exclusive, new_folder, read_json, write_json
from prisma.run_folder import (
    CURVES,
    METRICS,
    RESULTS,
    STATE,
    checkpoint_folder,
    checkpoint_steps,
    is_finished,
    read_metrics,
)
from prisma.train.config import Recipe
from prisma.train.curves import draw_curves
from prisma.train.evaluate import evaluate
from prisma.train.metrics_log import MetricsLog
from prisma.train.optimizer import learning_rate, make_optimizer
from prisma.train.order import batch
from prisma.train.probe import write_probe
from prisma.train.provenance import describe, seeds
from prisma.train.resume import load_state, remove_checkpoints, save_state, start
from prisma.train.resume import resume as resume_in
from prisma.train.tracking import Log, tracking
from prisma.vit import ViT, build

EVALUATED = 6000  # at most this many images of a split are evaluated, so that a checkpoint costs little


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    use_wandb: bool = False,
    device: str | None = None,
    command: str = "prisma train",
    progress: bool = True,
) -> dict[str, Any]:
    """Train a mouse into the folder `out`, or resume a run that was stopped there, at whatever moment.

    On the CPU a resumed run ends with bitwise the weights of an uninterrupted one in the same environment.

    Args:
        resume: continue from the newest state; a finished run is left as it is.
        use_wandb: also log to Weights & Biases.
        device: "cpu", "cuda", "cuda:1"; by default CUDA if there is one.
        command: the command line that recipe.json and results.json state.
        progress: show a progress bar on stderr.

    Returns:
        The content of `results.json`.

    Raises:
        PrismaError: `out` holds something already, or (with `resume`) no run of this recipe; the device or a package is
            missing; a file could not be written; the loss is not finite.
    """
    expect_packages("matplotlib", *(["wandb"] if use_wandb else []), extra="train")
    place, data = pick_device(device), task(recipe.task)
    if recipe.training.batch_size > (n := len(data.splits["train"].labels)):
        raise PrismaError(
            f"expected batch_size to be at most {n}, the number of training images; found {recipe.training.batch_size}"
        )
    description = describe(recipe, place, command)
    if resume:
        description = resume_in(out, description)
        if is_finished(out):
            return read_json(out / RESULTS)
    model = initial_model(recipe.model, recipe.training.init_seed).to(place)
    if not resume:
        start(out, description)
    with exclusive(out, f"train in {out}"), cpu_threads(recipe.training.threads):
        write_probe(out, data)
        run = _begin(recipe, model, place, out, description["run"])
        with tracking(use_wandb, description, out) as track, MetricsLog(out / METRICS, run.step) as log:
            _fit(run, log, track, progress)
        return _finish(run, command)


@dataclass(frozen=True)
class _Run:
    """The data of the loop. Only the weights and the optimizer's moments change."""

    recipe: Recipe
    id: str
    out: Path
    model: ViT
    optimizer: AdamW
    step: int  # the step at which this process begins
    images: Split  # the training images in [0, 1], on the device
    inputs: Mapping[str, tuple[Tensor, Tensor]]  # split -> (normalised images, labels), on the device


def _begin(recipe: Recipe, model: ViT, place: torch.device, out: Path, run_id: str) -> _Run:
    """The run at its newest state, or at step 0."""
    optimizer = make_optimizer(model, recipe.training)
    step = load_state(out / STATE, model, optimizer, run_id) if (out / STATE).is_file() else 0
    remove_checkpoints(out, step)
    data = task(recipe.task)
    images = Split(data.splits["train"].images.to(place), data.splits["train"].labels.to(place))
    first = {split: data.inputs(split, EVALUATED) for split in ("test", "train")}
    inputs = {split: (x.to(place), y.to(place)) for split, (x, y) in first.items()}
    return _Run(recipe, run_id, out, model, optimizer, step, images, inputs)


def initial_model(config: ViTConfig, seed: int) -> ViT:
    """A model with the weights of step 0, drawn on the CPU so that they are the same on every device."""
    with torch.random.fork_rng(devices=()), torch.device("cpu"):
        torch.manual_seed(seed)
        return build(config)


def _fit(run: _Run, log: MetricsLog, track: Log, progress: bool) -> None:
    """At each step: the loss of these weights on this step's batch, a checkpoint if one is due, then the update.

    The last step has no update. At a checkpoint the state is saved first; on resuming, that step is repeated with its
    line and its checkpoint, so that nothing depends on the moment of a kill.
    """
    config, transform = run.recipe.training, task(run.recipe.task).transform
    kept = frozenset(checkpoint_steps(config.steps, config.checkpoint_every))
    with tqdm(total=config.steps, initial=run.step, desc=run.recipe.name, file=sys.stderr, disable=not progress) as bar:
        for step in range(run.step, config.steps + 1):
            images, labels = batch(run.images, transform, config, step)
            loss = F.cross_entropy(run.model(images), labels)
            line = {"step": step, "loss": loss.item(), "lr": learning_rate(config, step)}
            if not math.isfinite(line["loss"]):
                raise PrismaError(f"expected a finite loss; found {line['loss']} at step {step}; try a smaller lr")
            if step in kept:
                log.sync()
                save_state(run.out / STATE, run.model, run.optimizer, step, run.id)
                line |= _evaluate(run)
                with new_folder(checkpoint_folder(run.out, step)) as folder:
                    _write_model(run, folder, step)
                bar.set_postfix(loss=f"{line['loss']:.3f}", accuracy=f"{line['test_accuracy']:.3f}", refresh=False)
            log.write(line)
            track(line)
            if step < config.steps:
                _update(run, loss, line["lr"])
                bar.update()


def _update(run: _Run, loss: Tensor, lr: float) -> None:
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(run.model.parameters(), run.recipe.training.clip)
    run.optimizer.step()


def _evaluate(run: _Run) -> dict[str, float]:
    """`train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` of the current weights."""
    numbers: dict[str, float] = {}
    for split, (images, labels) in run.inputs.items():
        numbers[f"{split}_loss"], numbers[f"{split}_accuracy"] = evaluate(run.model, images, labels)
    return numbers


def _write_model(run: _Run, folder: Path, step: int) -> None:
    data = task(run.recipe.task)
    header = {"step": str(step), "run": run.id}
    write_checkpoint(folder, run.model, labels=data.labels, transform=data.transform.to_dict(), header=header)


def _finish(run: _Run, command: str) -> dict[str, Any]:
    """Write the final weights, the curves, and last `results.json`, whose presence means that the run is finished."""
    steps = run.recipe.training.steps
    metrics = read_metrics(run.out / METRICS)
    _write_model(run, run.out, steps)
    draw_curves(metrics, run.out / CURVES, run.recipe.name)
    results = {
        "recipe": run.recipe.name,
        "run": run.id,
        "seeds": seeds(run.recipe),
        "command": command,
        "steps": steps,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "results": [
            {"name": f"{split} {kind}", "value": metrics[-1][f"{split}_{kind}"], "split": split, "n": len(labels)}
            for kind in ("accuracy", "loss")
            for split, (_, labels) in run.inputs.items()
        ],
    }
    write_json(run.out / RESULTS, results)
    return results


def pick_device(name: str | None) -> torch.device:
    """The device of this name; by default CUDA if there is one, else the CPU.

    Raises:
        PrismaError: this machine has no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(
            f"expected a device such as cpu or cuda that this machine has; found {name!r}: {reason}"
        ) from None
    return device


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads in the block, and its previous number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
