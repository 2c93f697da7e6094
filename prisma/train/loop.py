"""Training: from a recipe to a run folder that holds every checkpoint, the curves and the numbers."""

import math
import sys
from collections.abc import Callable, Mapping
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
from prisma.files import exclusive, folder_for, new_folder, to_json, write_json
from prisma.filesystem import given, sentences
from prisma.ledger import Ledger, expect_as_finished, write_hashes
from prisma.run_folder import (
    CURVE_KINDS,
    CURVES,
    DYNAMICS,
    METRICS,
    PROBE,
    RESULTS,
    STATE,
    checkpoint_folder,
    checkpoint_steps,
    is_finished,
    read_metrics,
    read_recipe,
    read_results,
    scheduled_steps,
)
from prisma.train.clock import Clock
from prisma.train.config import Recipe
from prisma.train.curves import draw_curves
from prisma.train.evaluate import evaluate
from prisma.train.machine import cpu_threads, pick_device
from prisma.train.metrics_log import MetricsLog
from prisma.train.optimizer import learning_rate, make_optimizer
from prisma.train.order import batch
from prisma.train.probe import write_probe
from prisma.train.provenance import describe, seeds
from prisma.train.resume import expect_run, expect_startable, load_state, remove_checkpoints, save_state, start
from prisma.train.resume import resume as resume_in
from prisma.train.stopping import Stopping
from prisma.train.tracking import Log, note_page, tracking
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

    On the CPU a resumed run ends with bitwise the weights of an uninterrupted one in the same environment. SIGINT
    (Ctrl-C), SIGTERM and SIGHUP take effect at the end of a step, after the state was saved (`prisma.train.stopping`).

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
            missing; a file could not be written or changed since; another process trains there; the loss is not finite.
    """
    out = given(out)
    expect_packages("matplotlib", *(["wandb"] if use_wandb else []), extra="train")
    place, data = pick_device(device), task(recipe.task)
    _expect_batches(recipe)
    description = describe(recipe, place, command)
    with sentences(out):
        if resume:
            expect_run(out)
            if is_finished(out):
                return _finished(out, description)
        else:
            expect_startable(out)
        model = initial_model(recipe.model, recipe.training.init_seed).to(place)
        lock = exclusive(out, f"train in {out}")
        with folder_for(out), lock as alone, cpu_threads(recipe.training.threads), Stopping() as stopping:
            if resume:
                description = resume_in(out, description)
                if is_finished(out):
                    return _finished(out, description)
            else:
                expect_startable(out)
            with tracking(use_wandb, description, out) as (track, page):
                if not resume:
                    start(out, description)
                note_page(out, page)
                write_probe(out, data)
                run = _begin(recipe, model, place, out, description, alone)
                with MetricsLog(out / METRICS, run.step, run.ledger.files.get(METRICS)) as log:
                    remove_checkpoints(out, run.step)  # once all of the past was checked
                    _fit(run, log, track, stopping, progress)
            return _finish(run, command, stopping)


def _expect_batches(recipe: Recipe) -> None:
    """Raise PrismaError unless a batch is at most all training images."""
    if recipe.training.batch_size > (n := len(task(recipe.task).splits["train"].labels)):
        raise PrismaError(
            f"expected batch_size to be at most {n}, the number of training images; found {recipe.training.batch_size}"
        )


def _finished(out: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a finished run of this description, whose files are as they were."""
    resume_in(out, description)
    results = read_results(out)
    expect_as_finished(out, read_recipe(out))
    return results


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
    ledger: Ledger  # of the probe and the checkpoints so far
    clock: Clock
    expect_alone: Callable[[], None] = lambda: None  # before writing: raises if the folder is another process's by now


def _begin(
    recipe: Recipe,
    model: ViT,
    place: torch.device,
    out: Path,
    description: Mapping[str, Any],
    expect_alone: Callable[[], None],
) -> _Run:
    """The run at its newest state, or at step 0. Raises PrismaError if what it wrote before was changed."""
    optimizer, run_id, ledger, step = make_optimizer(model, recipe.training), description["run"], Ledger(out), 0
    if (out / STATE).is_file():
        sealed, last = description["format"] is not None, recipe.training.steps
        step = load_state(out / STATE, model, optimizer, run_id, last=last, files=ledger.files, sealed=sealed)
    ledger.expect_unchanged()
    if not ledger.files:  # a new run, or one of version 0.1.0
        ledger.add(out / PROBE)
        ledger.add_checkpoints(*(past for past in scheduled_steps(out, description) if past < step))
    data = task(recipe.task)
    images = Split(data.splits["train"].images.to(place), data.splits["train"].labels.to(place))
    first = {split: data.inputs(split, EVALUATED) for split in ("test", "train")}
    inputs = {split: (x.to(place), y.to(place)) for split, (x, y) in first.items()}
    return _Run(recipe, run_id, out, model, optimizer, step, images, inputs, ledger, Clock(out, step), expect_alone)


def initial_model(config: ViTConfig, seed: int) -> ViT:
    """A model with the weights of step 0, drawn on the CPU so that they are the same on every device."""
    with torch.random.fork_rng(devices=()), torch.device("cpu"):
        torch.manual_seed(seed)
        return build(config)


def _fit(run: _Run, log: MetricsLog, track: Log, stopping: Stopping, progress: bool) -> None:
    """At each step: the loss of these weights on this step's batch, a checkpoint if one is due, then the update.

    The last step has no update. At a checkpoint the state is saved first; on resuming, that step is repeated with its
    line and its checkpoint, so that nothing depends on the moment of a kill. If the process is told to stop, the state
    is saved at whatever step it is; `checkpoints/` gets only those of the schedule.
    """
    config, transform = run.recipe.training, task(run.recipe.task).transform
    kept = frozenset(checkpoint_steps(config.steps, config.checkpoint_every))
    with tqdm(total=config.steps, initial=run.step, desc=run.recipe.name, file=sys.stderr, disable=not progress) as bar:
        for step in range(run.step, config.steps + 1):
            if stopping.wanted:
                _save(run, log, step)
                stopping.deliver()
            images, labels = batch(run.images, transform, config, step)
            loss = F.cross_entropy(run.model(images), labels)
            line = {"step": step, "loss": loss.item(), "lr": learning_rate(config, step)}
            if not math.isfinite(line["loss"]):
                raise PrismaError(f"expected a finite loss; found {line['loss']} at step {step}; try a smaller lr")
            if step in kept:
                _save(run, log, step)
                line |= _evaluate(run)
                with new_folder(checkpoint_folder(run.out, step)) as folder:
                    _write_model(run, folder, step)
                run.ledger.add_checkpoints(step)
                bar.set_postfix(loss=f"{line['loss']:.3f}", accuracy=f"{line['test_accuracy']:.3f}", refresh=False)
            log.write(line)
            track(line)
            if step < config.steps:
                _update(run, loss, line["lr"])
                bar.update()


def _save(run: _Run, log: MetricsLog, step: int) -> None:
    """Write the state of `step`, with the hashes of all that was written before it."""
    run.expect_alone()
    log.sync()
    past = {**run.ledger.files, METRICS: log.sha256}
    save_state(run.out / STATE, run.model, run.optimizer, step, run.id, past)
    run.clock.save()


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


def _finish(run: _Run, command: str, stopping: Stopping) -> dict[str, Any]:
    """Write the final weights, the curves, and last `results.json`, whose presence means that the run is finished.

    The state of the last step is saved already: a process that is told to stop can do so before the results.
    """
    run.expect_alone()
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
        "curves": [*CURVE_KINDS, DYNAMICS],
        **run.clock.stated,
    }
    run.expect_alone()
    write_hashes(run.out, to_json(results))
    stopping.deliver()
    run.expect_alone()
    write_json(run.out / RESULTS, results)
    run.clock.remove()
    return results
