"""How the suite runs in parallel, and a trained and a published mouse that are made once and copied for each test.

Every test process uses one torch thread: pytest-xdist starts one process per core, and the models are tiny.
"""

import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start; read when torch is imported
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup` it is ignored, by the processes that tests start too
os.environ["PRISMA_CACHE"] = str(Path(__file__).parent.parent / ".pytest_cache" / "prisma")  # shared by all processes
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of these processes compiles all modules anew


import torch
from filelock import FileLock
from hypothesis import settings

from prisma.files import write_atomic
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.train import curves, finish, train
from prisma.train.objectives import CLASSIFICATION, Objective

torch.set_num_threads(1)
settings.register_profile("prisma", deadline=None)  # no test is timed: other processes share its core
settings.load_profile("prisma")
sys.dont_write_bytecode = False  # nor do the tests, whose asserts are rewritten when they are compiled


def quick_fsync(descriptor: int) -> None:
    """What `os.fsync` is in test processes: they are killed, but the machine is not, which keeps what was written."""
    os.fstat(descriptor)  # an error where it is none


os.fsync = quick_fsync
_CURVES: dict[str, dict[str, bytes]] = {}


def curves_drawn_once(
    metrics: Sequence[Mapping[str, Any]], folder: Path, title: str, objective: Objective = CLASSIFICATION
) -> None:
    """What `draw_curves` is in test processes: most of their runs have the numbers of one before.

    The same numbers give the same bytes (`tests/train/test_curves.py`), and drawing them takes longer than such a run.
    """
    key = json.dumps([metrics, title, objective.measures, objective.loss_axis])
    if key not in _CURVES:
        drawn: dict[str, bytes] = {}
        with patch.object(curves, "write_atomic", lambda path, data: drawn.update({path.name: data})):
            curves.draw_curves(metrics, folder, title, objective)
        _CURVES[key] = drawn
    for name, data in _CURVES[key].items():
        write_atomic(folder / name, data)


finish.draw_curves = curves_drawn_once

REPO = "lab/tiny"
SMALL = {"steps": "6", "warmup": "1", "n_layers": "1", "d_model": "8", "n_heads": "2", "d_mlp": "8"}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker for each usable core; none if only files or single tests are named, which start faster without."""
    named = [argument.split("::")[0] for argument in config.invocation_params.args if not argument.startswith("-")]
    if any(argument.endswith(".py") for argument in named):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


FIRST = (
    "tests/e2e/test_demo.py",
    "tests/docs/test_pages.py",
    "tests/docs/test_site.py",
    "tests/app/test_browser_page.py",
    "tests/app/test_browser_patching.py",
    "tests/publish/test_publishing.py",
    "tests/train/test_loop.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slowest files first, so that no worker begins one when the others are done."""
    assert all((config.rootpath / name).is_file() for name in FIRST), "one of FIRST has another name now"
    items.sort(key=lambda item: item.nodeid.split("::")[0] not in FIRST)


def pytest_collection_finish() -> None:
    """What is imported and collected stays to the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries that count what is left of them at the end complain otherwise


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker to ask for it makes, and that all workers share. Nobody may change it.

    Raises:
        Timeout: of filelock, if another worker takes longer than four minutes to make it.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock", timeout=240):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a failed attempt left behind
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody may change; `run` is a copy."""

    def make(out: Path) -> None:
        train(recipe("digits").override(SMALL), out, command="prisma train digits", progress=False)

    return made_once(tmp_path_factory, "finished_run", make)


@pytest.fixture(scope="session")
def finished_hub(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder hub that serves `finished_run` as lab/tiny, and that nobody may change; `hub` is a copy."""
    return made_once(tmp_path_factory, "finished_hub", lambda hub: publish(finished_run, REPO, hub, progress=False))


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run with checkpoints at 0, 1, 2, 4 and 6."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def hub(finished_hub: Path, tmp_path: Path) -> Path:
    """A folder hub that serves `run` as lab/tiny."""
    return Path(shutil.copytree(finished_hub, tmp_path / "hub", symlinks=True))
