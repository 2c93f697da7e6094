"""The loop of training: at each step its loss, a checkpoint if one is due, then the update."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from prisma.errors import PrismaError
from prisma.files import new_folder
from prisma.launched import ALONE, Processes
from prisma.run_folder import (
    GRADIENT_NORM,
    MEAN,
    checkpoint_folder,
    checkpoint_folders,
    checkpoint_steps,
    read_metrics,
)
from prisma.train.dynamics import probed, weights_and_heads
from prisma.train.early_stop import EarlyStop
from prisma.train.machine import in_memory
from prisma.train.metrics_log import MetricsLog
from prisma.train.optimizer import learning_rate
from prisma.train.run import Run
from prisma.train.shared import steps_for
from prisma.train.steps import Steps
from prisma.train.stopping import Stopping

MEASURED = ((False, ""), (True, "ema_"))
"""Of which weights losses and accuracies are, the running mean or not -> how their names begin."""


class DivergedError(PrismaError):
    """A number of the training is not finite any more."""


def fit(
    runs: Sequence[Run],
    logs: Sequence[MetricsLog],
    stopping: Stopping,
    progress: bool,
    processes: Processes = ALONE,
) -> None:
    """Train runs of one recipe, which differ in their seeds and are at the same step, to their last step.

    A run that may end early (`prisma.train.early_stop`) is alone.

    The last step has no update. At a checkpoint the state is saved first; on resuming, that step is repeated with its
    line and its checkpoint, so that nothing depends on the moment of a kill. If the process is told to stop, the state
    is saved at whatever step it is; `checkpoints/` gets only those of the schedule.
    """
    config, pairs = runs[0].recipe.training, list(zip(runs, logs, strict=True))
    early_stop = EarlyStop(config, read_metrics(logs[0].path) if config.may_end_early and runs[0].step else ())
    kept = frozenset(checkpoint_steps(config.steps, config.checkpoint_every))
    name, room = runs[0].recipe.name, in_memory(config.batch_size, config.accumulate, len(runs))
    with room, tqdm(total=config.steps, initial=runs[0].step, desc=name, file=sys.stderr, disable=not progress) as bar:
        steps = steps_for(runs, processes)
        for first, last in _stretches(runs[0].step, config.steps, kept, steps.at_once):
            if stopping.wanted:
                for run, log in pairs:
                    run.save(log, first)
                stopping.deliver()
            if first in kept:
                lines = _checkpoint_lines(steps, runs, first)
                for (run, log), line in zip(pairs, lines, strict=True):
                    _keep(run, log, first)
                    run.write(log, line)
                headline = runs[0].recipe.objective.headline
                shown = {"loss": f"{lines[0]['loss']:.3f}", headline: f"{lines[0][f'test_{headline}']:.3f}"}
                bar.set_postfix(shown, refresh=False)
                if early_stop.ends(lines[0]):
                    break
            for step, losses in enumerate(steps.advance(first, last), start=first):
                for (run, log), loss in zip(pairs, losses, strict=True):
                    if step not in kept:
                        run.write(log, _line(run, step, loss))
            bar.update(last - first)


def _stretches(first: int, last: int, kept: frozenset[int], at_once: int) -> Iterator[tuple[int, int]]:
    """(first step, step after the last) of what is done in one call: a checkpoint is only at its beginning.

    The last one is (last, last): its checkpoint is due, and no update.
    """
    while first < last:
        after = next((step for step in range(first + 1, min(first + at_once, last)) if step in kept), None)
        after = after or min(first + at_once, last)
        yield first, after
        first = after
    yield last, last


def _line(run: Run, step: int, loss: float, **more: float) -> dict[str, Any]:
    """A line of the metrics. Raises PrismaError if one of its numbers is none: it says what is left of the run."""
    line = {"step": step, "loss": loss, "lr": learning_rate(run.recipe.training, step), **more}
    for name, value in line.items():
        if not math.isfinite(value):
            kept = checkpoint_folders(run.out)
            left = f"its newest checkpoint is {kept[-1].name}" if kept else "it has no checkpoint yet"
            raise DivergedError(
                f"expected a finite {name.replace('_', ' ')}; found {value} at step {step} of the run {run.out}; "
                f"{left}; try a smaller lr"
            )
    return line


def _checkpoint_lines(steps: Steps, runs: Sequence[Run], step: int) -> list[dict[str, Any]]:
    """The line of each run at a checkpoint: with losses and accuracies, norms, and the scores of its heads."""
    lines, evaluated = [], _evaluate(steps, runs)
    for run, (loss, norm), numbers in zip(runs, steps.measure(step), evaluated, strict=True):
        line = _line(run, step, loss, **numbers, **{GRADIENT_NORM: norm})
        device = str(run.images.labels.device)
        lines.append(line | weights_and_heads(run.model, probed(run.recipe.task, run.recipe.model, device)))
    return lines


def _evaluate(steps: Steps, runs: Sequence[Run]) -> list[dict[str, float]]:
    """`test_loss`, `test_accuracy` (or what else the objective measures), `train_loss`, ... of the current weights.

    The same of the running mean of the weights, if there is one, as `ema_test_loss` and so on.
    """
    numbers: list[dict[str, float]] = [{} for _ in runs]
    names = runs[0].recipe.objective.measures
    for mean, start in MEASURED[: 1 + (runs[0].mean is not None)]:
        for split in ("test", "train"):
            for line, found in zip(numbers, steps.evaluate(split, mean), strict=True):
                line |= {f"{start}{split}_{name}": value for name, value in zip(names, found, strict=True)}
    return numbers


def _keep(run: Run, log: MetricsLog, step: int) -> None:
    """Save the state, then write the checkpoint of a step."""
    run.save(log, step)
    with new_folder(checkpoint_folder(run.out, step)) as folder:
        run.write_model(folder, step)
        run.write_mean(folder / MEAN, step)
    run.ledger.add_checkpoints(step)
