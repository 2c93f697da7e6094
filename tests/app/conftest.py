"""Two published mice for the app: really trained, small, and never changed by a test."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from prisma.publish import publish
from prisma.recipes import recipe
from prisma.train import train

DIGITS, GLYPHS = "lab/digits", "lab/glyphs"
SMALL = {"steps": "40", "warmup": "4", "d_model": "32"}


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder hub that serves a digits mouse and an attention-only mouse of another task."""
    hub = tmp_path_factory.mktemp("lab") / "hub"
    for name, repo in (("digits", DIGITS), ("induction", GLYPHS)):
        run = tmp_path_factory.mktemp("runs") / name
        train(recipe(name).override(SMALL), run, command=f"prisma train {name}", progress=False)
        publish(run, repo, hub, progress=False)
    return hub


@pytest.fixture
def closed_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that make components: Gradio opens an event loop for each of its locks and closes none."""
    loops: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        loops.append(new_event_loop())
        return loops[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    yield
    for loop in loops:
        loop.close()
