from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.run_folder import read_metrics
from prisma.train import train


def test_it_is_the_mouse_of_six_layers() -> None:
    sprites = recipe("sprites")
    assert (sprites.name, sprites.task) == ("sprites", "sprites")
    assert (sprites.model.n_layers, sprites.model.norm, sprites.model.d_mlp) == (6, "pre", 256)
    assert sprites.model.n_patches + sprites.model.n_prefix == 50


def test_it_learns_from_the_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.loop.EVALUATED", 200)
    short = recipe("sprites").override({"steps": "20", "warmup": "5", "batch_size": "32"})
    train(short, tmp_path / "run", device="cpu", progress=False)
    losses = [line["train_loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train_loss" in line]
    assert losses[-1] < losses[0] - 0.2
