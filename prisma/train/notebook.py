"""`prisma.train(model, task)`: training from Python, with live curves in a notebook."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prisma.config import ViTConfig
from prisma.data import add
from prisma.data import task as task_named
from prisma.data.task import Task
from prisma.errors import PrismaError, quoted
from prisma.fields import conform
from prisma.filesystem import given
from prisma.loaded import Loaded, load
from prisma.run_folder import METRICS, checkpoint_folder, checkpoint_folders, read_metrics
from prisma.train.config import Recipe, TrainConfig
from prisma.train.fine_tuning import fitted
from prisma.train.live import curves_html
from prisma.train.loop import Job, train_together
from prisma.vit import ViT

Line = Mapping[str, Any]
DEFAULTS: Mapping[str, Any] = {"steps": 1000, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.1}
"""Settings that are not given: those of a small model; the rise of the rate is a twentieth of the steps."""
COMMAND = "prisma.train(model, task) in Python"
SHOWN_EVERY = 0.5  # seconds between two drawings of live curves


@dataclass(frozen=True)
class Trained:
    """A finished run, as `prisma.train` returns it. In a notebook it is drawn as its curves."""

    out: Path  # the run folder
    results: Mapping[str, Any]  # the content of results.json

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A line for every step: `loss`, `lr`, and at checkpoints `test_loss`, `test_accuracy` and more."""
        return read_metrics(self.out / METRICS)

    @property
    def checkpoints(self) -> list[Path]:
        """The folders of all checkpoints, in step order, for `prisma.load`."""
        return checkpoint_folders(self.out)

    def load(self, step: int | None = None) -> Loaded:
        """The final model, or that of the checkpoint at `step`. Raises PrismaError if there is none."""
        return load(self.out if step is None else checkpoint_folder(self.out, step))

    def __repr__(self) -> str:
        rows = ", ".join(f"{row['name']} {row['value']:.4g}" for row in self.results["results"])
        return f"Trained({str(self.out)!r}: {self.results['steps']:,} steps, {rows})"

    def _repr_html_(self) -> str:
        return curves_html(self.results["recipe"], self.metrics)


def train(
    model: ViTConfig | ViT | Loaded | Recipe,
    task: Task | str | None = None,
    out: Path | str | None = None,
    *,
    on_step: Callable[[Line], object] | None = None,
    on_checkpoint: Callable[[Line, Path], object] | None = None,
    resume: bool = False,
    device: str | None = None,
    live: bool = True,
    **settings: Any,
) -> Trained:
    """Train a model on a task, and keep every checkpoint.

    Args:
        model: an architecture, whose first weights are drawn by `init_seed`; a model, whose weights are the first ones
            (it stays as it is); what `prisma.load` returns, which is fitted to the task first
            (`prisma.train.fine_tuning.fitted`); or a recipe, which has its own task and settings.
        task: a name in `prisma.data.TASKS`, or a task of your own.
        out: the run folder, new or empty; by default `runs/` and the name of the task, or of the recipe.
        on_step: is called with the line of every step, as `metrics.jsonl` has it, once it is written.
        on_checkpoint: is called with the line of every checkpoint, and its folder, which `prisma.load` reads.
        resume: continue the run in `out`.
        device: "cpu", "cuda", "cuda:1"; by default CUDA if there is one.
        live: in a notebook, draw the curves while it trains; else a progress bar on stderr.
        settings: fields of `prisma.train.TrainConfig`, such as steps=500; those that are not given are `DEFAULTS`, or
            the recipe's.

    Raises:
        PrismaError: model, task and settings do not fit each other; otherwise as `prisma.train.loop.train`. An error of
            a callback ends the run, which can be resumed.
    """
    if isinstance(model, Loaded):
        model = fitted(model, task_named(_known(task)), settings.get("init_seed", 0), settings.get("init", "fan_in"))
    recipe = recipe_of(model, task, settings)
    folder = given(Path(out) if out is not None else Path("runs") / recipe.name)
    shown = _Shown(recipe.name) if live and _in_notebook() else None

    def watch(line: Line) -> None:
        if shown is not None:
            shown.add(line)
        if on_step is not None:
            on_step(line)
        if on_checkpoint is not None and "test_loss" in line:
            on_checkpoint(line, checkpoint_folder(folder, line["step"]))

    first = model if isinstance(model, ViT) else None
    job = Job(recipe, folder, COMMAND, resume, first=first)
    (results,) = train_together([job], device=device, progress=shown is None, watch=watch)
    if shown is not None:
        shown.draw()
    return Trained(folder, results)


def recipe_of(model: ViTConfig | ViT | Recipe, task: Task | str | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe that `train` follows. Raises PrismaError as it does."""
    if unknown := [name for name in settings if name not in TrainConfig.__dataclass_fields__]:
        raise PrismaError(
            f"expected settings among {', '.join(TrainConfig.__dataclass_fields__)}; found {quoted(unknown[0])}"
        )
    if isinstance(model, Recipe):
        if task is not None:
            raise PrismaError(f"expected no task beside a recipe, which has its own; found {_name(task)}")
        return replace(model, training=replace(model.training, **settings))
    if not isinstance(model, ViTConfig | ViT):
        raise PrismaError(f"expected a ViTConfig, a ViT, a Loaded or a Recipe to train; found {quoted(model)}")
    name, chosen = _known(task), {**DEFAULTS, **settings}
    data = task_named(name)
    n = len(data.splits["train"].labels)
    given_no_batch = "batch_size" not in settings
    chosen["batch_size"] = min(chosen["batch_size"], n) if given_no_batch else chosen["batch_size"]
    twentieth = conform("steps", chosen["steps"], int) // 20
    chosen = {"warmup": twentieth, "checkpoint_every": max(1, twentieth), **chosen}
    return Recipe(data.name, name, model if isinstance(model, ViTConfig) else model.config, TrainConfig(**chosen))


def _known(task: Task | str | None) -> str:
    """The name of a task, which is known by it from now on."""
    if isinstance(task, Task):
        add(task)
    elif not isinstance(task, str):
        raise PrismaError(f"expected a task, or its name; found {quoted(task)}")
    return _name(task)


def _name(task: Task | str) -> str:
    return task if isinstance(task, str) else task.name


def _in_notebook() -> bool:
    """Whether IPython runs this, and can show more than text."""
    shell = sys.modules["IPython"].get_ipython() if sys.modules.get("IPython") else None
    return shell is not None and hasattr(shell, "kernel")


class _Shown:
    """Curves in the output of the cell, which are drawn again at checkpoints."""

    def __init__(self, name: str) -> None:
        self.name, self.lines, self._drawn = name, list[Line](), 0.0
        self._handle = sys.modules["IPython"].display.display(self, display_id=True)

    def add(self, line: Line) -> None:
        self.lines.append(line)
        if "test_loss" in line and time.monotonic() - self._drawn > SHOWN_EVERY:
            self.draw()

    def draw(self) -> None:
        self._drawn = time.monotonic()
        self._handle.update(self)

    def __repr__(self) -> str:
        return f"{self.name}: {len(self.lines):,} steps"

    def _repr_html_(self) -> str:
        return curves_html(self.name, self.lines)
