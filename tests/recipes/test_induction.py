from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.train import train


def test_it_is_the_attention_only_mouse_of_one_layer() -> None:
    induction = recipe("induction")
    assert (induction.name, induction.task) == ("induction", "induction")
    assert (induction.model.n_layers, induction.model.d_mlp) == (1, 0)
    assert induction.model.n_patches + induction.model.n_prefix == 17


def test_a_hundred_steps_are_above_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.loop.EVALUATED", 656)  # all test images, and as many of the training images
    short = recipe("induction").override({"steps": "100", "warmup": "20"})
    accuracy = train(short, tmp_path / "run", device="cpu", progress=False)["results"][0]
    assert accuracy["name"] == "test accuracy" and accuracy["n"] == 656
    assert accuracy["value"] > 0.35  # chance is 0.25


def test_the_polygenic_one_is_of_two_layers() -> None:
    polygenic = recipe("induction-polygenic")
    assert (polygenic.task, polygenic.model.n_layers, polygenic.model.d_mlp) == ("induction-polygenic", 2, 128)
    assert polygenic.model.n_patches + polygenic.model.n_prefix == 65 and polygenic.model.n_classes == 12
