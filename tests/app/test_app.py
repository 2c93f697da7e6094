"""`app/app.py`, which a Space starts, outside a Space: over the folder hub beside it."""

import runpy
import shutil
import socket
from pathlib import Path
from urllib.request import urlopen

import gradio as gr
import pytest

from prisma.publish.space.code import APP
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.visitor import STOPPED, closed_loops

SPACE = Path(__file__).parents[2] / "app"


def test_it_is_what_a_space_starts() -> None:
    assert (SPACE / "app.py").read_text() == APP


def test_a_copy_of_it_serves_the_hub_beside_it(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; `tests/publish/space` starts a written Space in one of its own."""
    shutil.copy(SPACE / "app.py", tmp_path)
    shutil.copytree(lab, tmp_path / "hub", symlinks=True)
    waiting: list[gr.Blocks] = []
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda blocks: waiting.append(blocks))
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("GRADIO_SERVER_PORT", str(free.getsockname()[1]))
    with closed_loops():
        runpy.run_path(str(tmp_path / "app.py"), run_name="__main__")
        (blocks,) = waiting
        try:
            page = urlopen(blocks.local_url.rstrip("/") + "/prisma/models", timeout=STOPPED).read().decode()
        finally:
            blocks.close(verbose=False)
    assert DIGITS in page
    assert GLYPHS in page
