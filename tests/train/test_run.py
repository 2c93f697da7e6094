"""What a run writes at a checkpoint can be read back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prisma.checkpoint import read_checkpoint
from prisma.data import task
from prisma.errors import PrismaError
from prisma.ledger import Ledger
from prisma.run_folder import METRICS, STATE, read_metrics
from prisma.train import Recipe
from prisma.train.clock import Clock
from prisma.train.data_on import data_on
from prisma.train.initial import initial_model
from prisma.train.metrics_log import MetricsLog
from prisma.train.optimizer import make_optimizer
from prisma.train.resume import load_state
from prisma.train.run import Run


def test_state_checkpoint_and_lines(tiny: Recipe, tmp_path: Path) -> None:
    model, seen = initial_model(tiny.model, 0), list[object]()
    optimizer = make_optimizer(model, tiny.training)
    parts = (*data_on("digits", "cpu", 50), Ledger(tmp_path), Clock(tmp_path, 0))
    run = Run(tiny, "id", tmp_path, model, optimizer, 0, *parts, lambda: seen.append("looked"), seen.append)
    with MetricsLog(tmp_path / METRICS, 0) as log:
        run.save(log, 0)
        run.write(log, {"step": 0, "loss": 2.5})
    assert seen == ["looked", {"step": 0, "loss": 2.5}] and read_metrics(tmp_path / METRICS) == seen[1:]
    run.write_model(tmp_path / "c", 7)
    checkpoint = read_checkpoint(tmp_path / "c")
    assert checkpoint.header == {"step": "7", "run": "id"} and checkpoint.labels == task("digits").labels
    other = initial_model(tiny.model, 1)
    again = replace(run, model=other, optimizer=make_optimizer(other, tiny.training))
    assert load_state(tmp_path / STATE, again.model, again.optimizer, "id") == 0
    for p, q in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_state_with_nan_is_not_saved_over_a_good_one(tiny: Recipe, tmp_path: Path) -> None:
    """As when a signal comes after an update that broke the weights, before the next loss shows it."""
    model = initial_model(tiny.model, 0)
    optimizer = make_optimizer(model, tiny.training)
    run = Run(
        tiny, "id", tmp_path, model, optimizer, 0, *data_on("digits", "cpu", 50), Ledger(tmp_path), Clock(tmp_path, 0)
    )
    with MetricsLog(tmp_path / METRICS, 0) as log:
        run.save(log, 0)
        before = (tmp_path / STATE).read_bytes()
        model.readout.head.bias.data[2] = float("nan")
        with pytest.raises(PrismaError, match=r"expected finite weights in step 3 of the run .*readout\.head\.bias"):
            run.save(log, 3)
    assert (tmp_path / STATE).read_bytes() == before
