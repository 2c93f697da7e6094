"""Building and serving: only this machine, nothing told to anyone."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from prisma_app import main
from prisma_app.api import ENDPOINTS
from prisma_app.library import Library

from prisma import PrismaError
from tests.app.conftest import DIGITS

pytestmark = pytest.mark.usefixtures("closed_loops")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `launch` was asked for, without launching."""
    asked: dict[str, Any] = {}

    def launch(blocks: gr.Blocks, **options: Any) -> tuple[None, str, str]:
        asked.update(options)
        return None, f"http://127.0.0.1:{options['server_port']}/", ""

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    return asked


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_serving_is_private(lab: Path, launched: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    main.serve(lab, DIGITS, port=8123, block=False)
    assert capsys.readouterr().out == "Prisma is open at http://127.0.0.1:8123/\n"
    off = ("share", "enable_monitoring", "run_history", "ssr_mode", "mcp_server", "show_error")
    assert not any(launched[name] for name in off)
    assert (launched["server_name"], launched["allowed_paths"], launched["strict_cors"]) == ("127.0.0.1", [], True)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_tools_of_language_models(lab: Path, launched: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    for mcp in (False, True):
        monkeypatch.setattr(main, "find_spec", lambda name: name == "mcp")
        main.serve(lab, DIGITS, mcp=mcp, block=False)
        (guard,) = launched["app_kwargs"]["middleware"]
        opened.append([path.startswith(guard.kwargs["open_"]) for path in ("/gradio_api/mcp", "/gradio_api/mcp/x")])
        assert launched["mcp_server"] is mcp
    assert opened == [[False, False], [True, True]]
    monkeypatch.setattr(main, "find_spec", lambda name: None)
    with pytest.raises(PrismaError, match="expected the package mcp for --mcp; found none"):
        main.serve(lab, DIGITS, mcp=True, block=False)


def test_the_first_free_port(lab: Path, launched: dict[str, Any], taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "FIRST_PORT", taken)
    main.serve(lab, block=False)
    assert taken < launched["server_port"] < taken + main.PORTS


def test_a_port_that_another_program_takes_meanwhile(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def launch(blocks: gr.Blocks, server_port: int, **options: Any) -> tuple[None, str, str]:
        tried.append(server_port)
        if len(tried) < 3:
            raise OSError(f"Cannot find empty port in range: {server_port}-{server_port}")
        return None, f"http://127.0.0.1:{server_port}/", ""

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    main.serve(lab, block=False)
    assert len(tried) == 3 and tried == sorted(set(tried))
    with pytest.raises(PrismaError, match="expected a free port from 8123 to 8123; found none"):
        tried.clear()
        main.serve(lab, port=8123, block=False)


def test_a_port_that_is_taken(lab: Path, taken: int) -> None:
    with pytest.raises(PrismaError, match=f"expected a free port; found port {taken} in use"):
        main.serve(lab, port=taken, block=False)


def test_the_page_has_no_events_of_its_own(library: Library) -> None:
    functions = main.page_of(lambda: library).fns.values()
    assert tuple(function.api_name for function in functions) == tuple(ENDPOINTS)
    assert all(not function.targets or function.targets[0][1] is None for function in functions)


def test_the_template_is_constant(library: Library) -> None:
    page = next(block for block in main.page_of(lambda: library).blocks.values() if isinstance(block, gr.HTML))
    assert page.value == '<div id="prisma" class="pz-root"></div>'


def test_an_address_comes_before_the_models_where_they_are_plain_to_see(lab: Path, tmp_path: Path) -> None:
    seen = [(None, None), (None, "mice/sprites"), (lab, None), (lab, DIGITS)]
    assert all(main._is_plain(hub, model) for hub, model in seen)
    others = [
        (None, "mice/none"),
        (None, "lab/digits"),
        (lab, "lab/none"),
        (lab, "*"),
        (tmp_path, None),
        (tmp_path / "no", None),
    ]
    assert not any(main._is_plain(hub, model) for hub, model in others)


def test_models_that_turn_out_wrong_close_what_was_opened(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Page:
        def close(self, verbose: bool) -> None:
            closed.append(True)

    def damaged(*_: Any) -> None:
        raise PrismaError("this hub is damaged")

    monkeypatch.setattr("prisma_app.library.library_of", damaged)
    monkeypatch.setattr(main, "_launch", lambda *_: (Page(), "http://127.0.0.1:1/"))
    with pytest.raises(PrismaError, match="this hub is damaged"):
        main.serve(lab, DIGITS, block=False)
    assert closed == [True]
