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
from prisma.errors import PrismaError
from prisma.files import exclusive, new_folder, read_json, write_json
from prisma.train.config import Recipe
from prisma.train.curves import draw_curves
from prisma.train.evaluate import evaluate
from prisma.train.metrics_log import METRICS, MetricsLog, read_metrics
from prisma.train.optimizer import make_optimizer
from prisma.train.order import batch
from prisma.train.packages import expect_packages
from prisma.train.provenance import describe, seeds
from prisma.train.run_folder import (
    RESULTS,
    checkpoint_folder,
    expect_run,
    forget_from,
    is_finished,
    start,
    write_probe,
)
from prisma.train.schedule import checkpoint_steps, learning_rate
from prisma.train.state import STATE, load_state, save_state
from prisma.train.tracking import Log, tracking
from prisma.vit import ViT, build

EVALUATED = 6000  # images of a split at most, its first ones: a checkpoint should not cost a hundred steps


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
    """Train a mouse into the folder `out`, or go on with a run that was stopped there, at whatever moment.

    On the CPU a resumed run ends with bitwise the weights of an uninterrupted one in the same environment.

    Args:
        resume: go on from the newest state; a finished run is left as it is.
        use_wandb: log to Weights & Biases too.
        device: "cpu", "cuda", "cuda:1"; by default CUDA where there is one.
        command: what recipe and results say that they were made with.
        progress: a progress bar on stderr.

    Returns:
        The content of `results.json`.

    Raises:
        PrismaError: `out` holds something already, or nothing or another recipe to resume; the device or a package is
            not there; a file could not be written; the loss is no longer finite.
    """
    expect_packages("matplotlib", *(["wandb"] if use_wandb else []))
    place, data = pick_device(device), task(recipe.task)
    if recipe.training.batch_size > (n := len(data.splits["train"].labels)):
        raise PrismaError(f"batch_size must be at most the {n} training images; found {recipe.training.batch_size}")
    description = describe(recipe, place, command)
    if resume:
        expect_run(out, description)
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
    """What the loop works on. Only the weights and the optimizer's moments change."""

    recipe: Recipe
    id: str
    out: Path
    model: ViT
    optimizer: AdamW
    step: int  # at which this process begins
    images: Split  # to train on: images in [0, 1], on the device
    inputs: Mapping[str, tuple[Tensor, Tensor]]  # split -> (normalised images, labels), on the device


def _begin(recipe: Recipe, model: ViT, place: torch.device, out: Path, run_id: str) -> _Run:
    """The run as its newest state has it, or at step 0."""
    optimizer = make_optimizer(model, recipe.training)
    step = load_state(out / STATE, model, optimizer, run_id) if (out / STATE).is_file() else 0
    forget_from(out, step)
    data = task(recipe.task)
    images = Split(data.splits["train"].images.to(place), data.splits["train"].labels.to(place))
    first = {split: data.inputs(split, EVALUATED) for split in ("test", "train")}
    inputs = {split: (x.to(place), y.to(place)) for split, (x, y) in first.items()}
    return _Run(recipe, run_id, out, model, optimizer, step, images, inputs)


def initial_model(config: ViTConfig, seed: int) -> ViT:
    """The weights of step 0, drawn on the CPU so that every device starts from the same ones."""
    with torch.random.fork_rng(devices=()), torch.device("cpu"):
        torch.manual_seed(seed)
        return build(config)


def _fit(run: _Run, log: MetricsLog, track: Log, progress: bool) -> None:
    """At each step: the loss of these weights on this step's batch, a checkpoint if one is due, then the update.

    The last step has no update. At a checkpoint the state comes first and its step is done again on resuming, with its
    line and its checkpoint; so nothing depends on the moment of a kill.
    """
    config, transform = run.recipe.training, task(run.recipe.task).transform
    kept = frozenset(checkpoint_steps(config))
    with tqdm(total=config.steps, initial=run.step, desc=run.recipe.name, file=sys.stderr, disable=not progress) as bar:
        for step in range(run.step, config.steps + 1):
            images, labels = batch(run.images, transform, config, step)
            loss = F.cross_entropy(run.model(images), labels)
            line = {"step": step, "loss": loss.item(), "lr": learning_rate(config, step)}
            if not math.isfinite(line["loss"]):
                raise PrismaError(f"expected a finite loss, found {line['loss']} at step {step}; try a smaller lr")
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
    """`train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` of the present weights."""
    numbers: dict[str, float] = {}
    for split, (images, labels) in run.inputs.items():
        numbers[f"{split}_loss"], numbers[f"{split}_accuracy"] = evaluate(run.model, images, labels)
    return numbers


def _write_model(run: _Run, folder: Path, step: int) -> None:
    data = task(run.recipe.task)
    header = {"step": str(step), "run": run.id}
    write_checkpoint(folder, run.model, labels=data.labels, transform=data.transform.to_dict(), header=header)


def _finish(run: _Run, command: str) -> dict[str, Any]:
    """The final weights, the curves, and last `results.json`, whose presence means that the run is finished."""
    steps = run.recipe.training.steps
    metrics = read_metrics(run.out / METRICS)
    _write_model(run, run.out, steps)
    draw_curves(metrics, run.out / "curves", run.recipe.name)
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
    """The device of this name; by default CUDA where there is one, else the CPU.

    Raises:
        PrismaError: no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(f"expected a device such as cpu or cuda that is here, found {name!r}: {reason}") from None
    return device


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """torch computes with `n` threads in the block, whatever it was told before, and as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
