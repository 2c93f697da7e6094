"""A finished run and a published mouse, small, each made once and copied for every test that asks."""

import shutil
from pathlib import Path

import pytest

from prisma.publish import publish
from prisma.recipes import recipe
from prisma.train import train

REPO = "lab/tiny"
SMALL = {"steps": "6", "warmup": "1", "n_layers": "1", "d_model": "8", "n_heads": "2", "d_mlp": "8"}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody may change; `run` is a copy."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(recipe("digits").override(SMALL), out, command="prisma train digits", progress=False)
    return out


@pytest.fixture(scope="session")
def finished_hub(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder hub that serves `finished_run` as lab/tiny, and that nobody may change; `hub` is a copy."""
    hub = tmp_path_factory.mktemp("hubs") / "hub"
    publish(finished_run, REPO, hub, progress=False)
    return hub


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run with checkpoints at 0, 1, 2, 4 and 6."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def hub(finished_hub: Path, tmp_path: Path) -> Path:
    """A folder hub that serves `run` as lab/tiny."""
    return Path(shutil.copytree(finished_hub, tmp_path / "hub", symlinks=True))
