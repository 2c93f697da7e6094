"""A tuned lens of the published mouse, and the cards' code."""

from pathlib import Path

import pytest
import torch

import prisma
from tests.hubserver.conftest import server
from tests.publish.conftest import address, published_root, published_server

__all__ = ["address", "lens", "published_root", "published_server", "server"]


@pytest.fixture
def lens(finished_run: Path, tmp_path: Path) -> Path:
    """A folder with a tuned lens of `finished_run`."""
    mouse = prisma.load(finished_run)
    assert mouse.transform is not None
    images = mouse.transform.normalise(torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    prisma.train_tuned_lens(mouse.model, images, steps=3, batch=4, lr=0.01).write(tmp_path / "lens")
    return tmp_path / "lens"
