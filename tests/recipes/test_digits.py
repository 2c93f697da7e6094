from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.run_folder import checkpoint_steps
from prisma.train import train


def test_it_is_the_two_layer_mouse_with_an_mlp() -> None:
    digits = recipe("digits")
    assert (digits.name, digits.task) == ("digits", "digits")
    assert digits.model.n_layers == 2 and digits.model.d_mlp > 0
    assert digits.model.n_patches + digits.model.n_prefix == 17
    assert {0, 1, 2, 512, digits.training.steps} < set(
        checkpoint_steps(digits.training.steps, digits.training.checkpoint_every)
    )


def test_a_hundred_steps_are_well_above_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.loop.EVALUATED", 360)  # all test images, and as many of the training images
    short = recipe("digits").override({"steps": "100", "warmup": "20"})
    accuracy = train(short, tmp_path / "run", device="cpu", progress=False)["results"][0]
    assert accuracy["name"] == "test accuracy" and accuracy["n"] == 360
    assert accuracy["value"] > 0.5  # chance is 0.1
