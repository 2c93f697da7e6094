"""What a checkpoint costs beside the steps of training, on one thread of a CPU.

    python -m benchmarks.checkpoints [RECIPE ...] [--json FILE]

Milliseconds of CPU time, each the least of several: a step; the evaluation of both splits, in passes of 1,024 images
and in those that are made; norms and scores of heads; writing state and checkpoint. And the milliseconds of wall time
that a checkpoint waits for the disk.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.train import runs_of
from prisma.ledger import Ledger
from prisma.recipes import recipe
from prisma.run_folder import METRICS, checkpoint_steps
from prisma.train.clock import Clock
from prisma.train.data_on import data_on
from prisma.train.dynamics import probed, weights_and_heads
from prisma.train.evaluate import MOST, evaluate
from prisma.train.fit import _keep
from prisma.train.loop import EVALUATED
from prisma.train.machine import cpu_threads
from prisma.train.metrics_log import MetricsLog
from prisma.train.run import Run
from prisma.train.steps import Eager

RECIPES = ("digits", "induction", "circle", "sprites")


def least(work: Callable[[], object], times: int = 5) -> float:
    """Milliseconds of CPU time."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return 1e3 * min(found)


def writing(run: Run, times: int = 8) -> tuple[float, float]:
    """(milliseconds of CPU time, milliseconds that the disk makes wait) of a checkpoint."""
    waits, sync = list[float](), os.fsync

    def timed(file: int) -> None:
        start = time.perf_counter()
        sync(file)
        waits.append(time.perf_counter() - start)

    with TemporaryDirectory() as folder, MetricsLog(Path(folder) / METRICS, 0) as log, patch("os.fsync", timed):
        out = Path(folder)
        own, steps = replace(run, out=out, ledger=Ledger(out), clock=Clock(out, 0)), iter(range(times))
        cpu = least(lambda: _keep(own, log, next(steps)), times)
    return cpu, 1e3 * sum(waits) / times


def measure(name: str) -> dict[str, Any]:
    chosen = recipe(name)
    run = replace(runs_of(chosen, "cpu", 1)[0], inputs=data_on(chosen.task, "cpu", EVALUATED)[1])
    way, of = Eager(run), probed(chosen.task, chosen.model, "cpu")
    step = iter(range(10**6))

    def go() -> None:
        first = next(step)
        way.advance(first, first + 1)

    def evaluation(batch: int | None) -> None:
        for images, labels in run.inputs.values():
            evaluate(run.model, images, labels, batch)

    with cpu_threads(chosen.training.threads):
        cpu, waits = writing(run)
        found = {
            "step": least(go, 10),
            "evaluation, 1,024 images a pass": least(lambda: evaluation(MOST), 3),
            "evaluation": least(lambda: evaluation(None), 3),
            "norms and heads": least(lambda: weights_and_heads(run.model, of)),
            "writing": cpu,
            "disk": waits,
        }
    steps, checkpoints = (
        chosen.training.steps,
        len(checkpoint_steps(chosen.training.steps, chosen.training.checkpoint_every)),
    )
    return {
        "recipe": name,
        "steps": steps,
        "checkpoints": checkpoints,
        **{key: round(x, 1) for key, x in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a checkpoint costs beside the steps of training.")
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    args = parser.parse_args()
    rows = [measure(name) for name in args.recipes]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if args.json:
        where = {"torch": torch.__version__, "device": platform.machine(), "rows": rows}
        args.json.write_text(json.dumps(where, indent=2) + "\n")


if __name__ == "__main__":
    main()
