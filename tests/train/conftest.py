"""A recipe that trains in a second, and its finished run."""

from pathlib import Path

import pytest

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig, train


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """Every path of the loop: images that move, warm-up, checkpoints at 0, 1, 2, ... 64 and 70."""
    model = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=1, d_model=16, n_heads=2, d_mlp=16, n_classes=10)
    training = TrainConfig(
        steps=70, batch_size=32, lr=3e-3, warmup=5, weight_decay=0.1, shift=0.5, turn=10, checkpoint_every=20
    )
    return Recipe("tiny", "digits", model, training)


@pytest.fixture(scope="session")
def whole(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `tiny`, never interrupted, which nobody may change."""
    out = tmp_path_factory.mktemp("train") / "whole"
    train(tiny, out, device="cpu", progress=False)
    return out
