"""Small recipes of every objective, on digits and on two tasks of several targets that are made of them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from prisma.config import ViTConfig
from prisma.data import add, task
from prisma.data.task import Split, Target, Task, data_hash
from prisma.train import Recipe, TrainConfig

PARTS = (Target("digit", tuple("0123456789")), Target("parity", ("even", "odd")))
NUMBERS = (Target("ink"), Target("digit"))


def _task(name: str, targets: tuple[Target, ...]) -> Task:
    digits = task("digits")

    def of(split: Split) -> Split:
        if targets is PARTS:
            return Split(split.images, torch.stack([split.labels, split.labels % 2], 1))
        return Split(split.images, torch.stack([100 * split.images.mean((1, 2, 3)), split.labels.float()], 1))

    train, test = (of(digits.splits[name]) for name in ("train", "test"))
    names, sha256 = tuple(output for target in targets for output in target.outputs), data_hash(train, test)
    about = (digits.summary, digits.source, names, digits.transform)
    return Task(name, *about, lambda: (train, test), sha256, license="mit", targets=targets)


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
        "reconstruction": ("digits", replace(model, n_classes=16, pool="mean")),
        "masked": ("digits", replace(model, patch_size=2, n_classes=0, pool="mean")),
    }
    more = {"masked": {"norm_pixels": True, "decoder_d_model": 8, "decoder_heads": 2}}
    return {
        name: Recipe(name, data, shape, replace(training, objective=name, **more.get(name, {})), "mit")
        for name, (data, shape) in shapes.items()
    }
