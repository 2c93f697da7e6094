from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.run_folder import read_metrics
from prisma.train import train


def test_it_is_the_mouse_of_two_layers() -> None:
    clevr = recipe("clevr")
    assert (clevr.task, clevr.model.n_layers, clevr.model.d_mlp, clevr.model.n_tokens) == ("clevr", 2, 128, 37)


def test_it_learns_from_the_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.loop.EVALUATED", 200)
    short = recipe("clevr").override({"steps": "64", "warmup": "10", "batch_size": "32"})
    train(short, tmp_path / "run", device="cpu", progress=False)
    losses = [line["train_loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train_loss" in line]
    assert losses[-1] < losses[0] - 0.3
