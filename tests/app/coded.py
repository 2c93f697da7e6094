"""A folder hub with a mouse and two sparse coders of it: one of its end, one of an early step."""

import shutil
from pathlib import Path

import pytest

import prisma
from prisma.publish import publish
from prisma.repository import Published
from prisma.sparse.evaluated import write_evaluation
from prisma.sparse.evaluation import evaluate
from prisma.sparse.files import read_coder
from prisma.sparse.training import train
from tests.app.conftest import DIGITS
from tests.conftest import made_once

END, EARLY = "lab/digits-coder", "lab/digits-early"


def coded_hub(lab: Path, factory: pytest.TempPathFactory) -> Path:
    """A copy of the hub `lab`, to which the coders are added. Nobody may change it."""
    return made_once(factory, "coded", lambda folder: _make(lab, folder)) / "hub"


def _make(lab: Path, folder: Path) -> None:
    folder.mkdir()
    hub = Path(shutil.copytree(lab, folder / "hub", symlinks=True))
    pixels = Published(DIGITS, hub).probe()[0][:64]
    for repo, revision in ((END, None), (EARLY, "step-000000")):
        loaded = prisma.load(DIGITS, revision, hub)
        assert loaded.transform is not None
        images, out = loaded.transform.normalise(pixels), folder / repo
        train(loaded.model, images, site="blocks.0.resid_post", width=24, k=3, steps=20, batch=64, out=out)
        write_evaluation(out, evaluate(read_coder(out), loaded.model, images, baseline_steps=2), "digits", 64)
        publish(out, repo, hub, base_model=f"{DIGITS}@{revision}" if revision else DIGITS, progress=False)
