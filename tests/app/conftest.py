"""Two published mice for the app, really trained and small; a session on one; what Gradio leaves open, closed."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.models import Mouse
from app.session import Session, opened
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.repository import Published
from prisma.train import train

DIGITS, GLYPHS = "lab/digits", "lab/glyphs"
HOSTILE = "<img src=x onerror='window.harmed=1'>${window.harmed=1}{{window.harmed=1}}"
SMALL = {"steps": "40", "warmup": "4", "d_model": "32"}


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder hub that serves a digits mouse, and an attention-only mouse of another task with a hostile label."""
    hub = tmp_path_factory.mktemp("lab") / "hub"
    for name, repo in (("digits", DIGITS), ("induction", GLYPHS)):
        run = tmp_path_factory.mktemp("runs") / name
        train(recipe(name).override(SMALL), run, command=f"prisma train {name}", progress=False)
        publish(run, repo, hub, progress=False)
    config = Published(GLYPHS, hub).file("config.json")
    renamed = config.read_text().replace('"vertical, same"', json.dumps(HOSTILE))
    config.unlink()  # a link to its blob
    config.write_text(renamed)
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


@pytest.fixture(params=[DIGITS, GLYPHS])
def session(request: pytest.FixtureRequest, lab: Path) -> Session:
    """On a checkpoint from the middle of training."""
    return replace(opened(Mouse(Published(request.param, lab))), index=5)
