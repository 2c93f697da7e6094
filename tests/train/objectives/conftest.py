"""Small recipes of every objective, on digits and on two tasks of several targets that are made of them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from prisma.config import ViTConfig
from prisma.data import add, task
from prisma.data.task import Factor, Split, Task
from prisma.train import Recipe, TrainConfig

PARTS = (Factor("digit", "the digit", tuple("0123456789")), Factor("parity", "is it even?", ("even", "odd")))
NUMBERS = (Factor("ink", "how much of it is white"), Factor("digit", "the digit"))


def _task(name: str, factors: tuple[Factor, ...]) -> Task:
    digits = task("digits")

    def of(split: Split) -> Split:
        values = {"digit": split.labels, "parity": split.labels % 2, "ink": 100 * split.images.mean((1, 2, 3))}
        return replace(split, factors={factor.name: values[factor.name] for factor in factors})

    splits = (of(digits.splits["train"]), of(digits.splits["test"]))
    asked = tuple(factor.name for factor in factors)
    return replace(digits, name=name, make=lambda: splits, factors=factors, targets=asked)


@pytest.fixture(scope="session")
def recipes() -> Mapping[str, Recipe]:
    """Objective -> a recipe of a few steps."""
    add(_task("digits-parts", PARTS)), add(_task("digits-numbers", NUMBERS))
    model = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=1, d_model=8, n_heads=2, d_mlp=8, n_classes=12)
    training = TrainConfig(
        steps=6, batch_size=16, lr=3e-3, warmup=2, weight_decay=0.1, shift=0.5, turn=10, checkpoint_every=100
    )
    shapes = {
        "several": ("digits-parts", replace(model, n_classes=12)),
        "regression": ("digits-numbers", replace(model, n_classes=2)),
        "varying": ("digits-numbers", replace(model, n_classes=1)),
        "reconstruction": ("digits", replace(model, n_classes=16, pool="mean")),
        "masked": ("digits", replace(model, patch_size=2, n_classes=0, pool="mean")),
    }
    more = {"masked": {"norm_pixels": True, "decoder_d_model": 8, "decoder_heads": 2}, "varying": {"goal_every": 2}}
    return {
        name: Recipe(name, data, shape, replace(training, objective=name, **more.get(name, {})), "mit")
        for name, (data, shape) in shapes.items()
    }
