"""Training on a GPU: many steps in a call, runs side by side, and what is the same to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prisma.checkpoint import read_tensors
from prisma.data.dsprites import dsprites_grid
from prisma.recipes import recipe
from prisma.run_folder import read_metrics
from prisma.train import Recipe, train
from prisma.train.loop import Job, train_together
from prisma.train.metrics_log import MetricsLog

pytestmark = pytest.mark.gpu


def short(name: str, **changes: str) -> Recipe:
    return recipe(name).override({"steps": "300", "warmup": "20", "checkpoint_every": "100", **changes})


def numbers(out: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    return read_tensors(out / "model.safetensors")[0], read_metrics(out / "metrics.jsonl")


def test_the_grid_of_dsprites_is_the_same_bits() -> None:
    images, factors = dsprites_grid(device="cuda")
    there, its_factors = dsprites_grid()
    assert torch.equal(factors.cpu(), its_factors)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(images.split(100_000), there.split(100_000), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["digits", "induction"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = short(name, precision=precision)
    train(chosen, tmp_path / "whole", device="cuda", progress=False)
    write = MetricsLog.write

    def stopping(log: MetricsLog, line: dict[str, float]) -> None:
        if line["step"] == 150:
            raise KeyboardInterrupt
        write(log, line)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MetricsLog, "write", stopping)
        train(chosen, tmp_path / "run", device="cuda", progress=False)
    train(chosen, tmp_path / "run", device="cuda", resume=True, progress=False)
    (whole, lines), (resumed, its_lines) = numbers(tmp_path / "whole"), numbers(tmp_path / "run")
    assert its_lines == lines
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_a_gpu_takes_the_steps_of_the_cpu(tmp_path: Path) -> None:
    chosen = short("digits", steps="30")
    for device in ("cpu", "cuda"):
        train(chosen, tmp_path / device, device=device, progress=False)
    there, here = (read_metrics(tmp_path / device / "metrics.jsonl") for device in ("cuda", "cpu"))
    assert [line["loss"] for line in there] == pytest.approx([line["loss"] for line in here], rel=2e-3)


def test_runs_side_by_side_are_the_runs_alone(tmp_path: Path) -> None:
    seeds = [short("digits", steps="30", init_seed=seed, order_seed=seed) for seed in "0123"]
    train_together([Job(one, tmp_path / f"{i}") for i, one in enumerate(seeds)], device="cuda", progress=False)
    for i, one in enumerate(seeds):
        train(one, tmp_path / f"alone-{i}", device="cuda", progress=False)
        lines, its_lines = (read_metrics(tmp_path / run / "metrics.jsonl") for run in (f"{i}", f"alone-{i}"))
        for split in ("train", "test"):
            key = f"{split}_loss"
            found, expected = ([line[key] for line in some if key in line] for some in (lines, its_lines))
            assert found == pytest.approx(expected, rel=2e-3)
