"""A visitor of the app: a real browser, the server that `prisma app` starts, and the numbers that a viewer shows."""

import asyncio
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from playwright.sync_api import Browser, Locator
from playwright.sync_api import Page as Tab
from prisma_app.main import serve

WAIT = 15_000  # milliseconds
STOPPED = 60  # seconds in which `prisma app` must have ended
ERROR = 8e-6  # of a fraction on its way to the page
ROW = 2.1e-3  # of the largest weight in a row of attention
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def served(hub: Path | None, model: Path | str, prompts: Sequence[str] = ()) -> Iterator[str]:
    """The address of the app, served by this process, which has imported all; `tests/cli` and `tests/e2e` start it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]  # of the system's choice: another test process looks for one at this moment
    with closed_loops():
        blocks = serve(hub, str(model), port, prompts=prompts, block=False)
        try:
            yield blocks.local_url
        finally:
            blocks.close(verbose=False)


@contextmanager
def closed_loops() -> Iterator[None]:
    """For components made in this process: Gradio opens an event loop for each of its locks and closes none."""
    loops: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        loops.append(new_event_loop())
        return loops[-1]

    with patch.object(asyncio, "new_event_loop", noted):
        yield
    for loop in loops:
        loop.close()


@dataclass
class App:
    """One visitor's page."""

    tab: Tab
    url: str
    complaints: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()  # parts of complaints that a test expects

    def open(self, query: str = "") -> "App":
        self.tab.goto(self.url + query)
        return self

    def show(self, view: str) -> "App":
        """Choose a view by its tab, and wait for its figure."""
        self.tab.locator(f"#pz-tab-{view}").click()
        self.ready(f"s.view === '{view}'")
        return self

    def ready(self, wanted: str = "true") -> dict[str, Any]:
        """The state of the page, as soon as its figure is drawn and it satisfies a condition on `s`."""
        test = f"() => {{ const p = window.prisma, s = p?.state; return p?.ready && ({wanted}) ? s : null; }}"
        found: dict[str, Any] = self.tab.wait_for_function(test, timeout=WAIT).json_value()
        return found

    def figure(self, expression: str) -> Any:
        """What an expression on `f`, the figure that is shown, gives."""
        return self.tab.evaluate(
            f"() => {{ const f = window.prisma.page.figures[window.prisma.state.view]; return {expression}; }}"
        )

    def over(self, map_: Locator, column: float, row: float, grid: int = 4) -> None:
        """Move the pointer to a patch; the patches are the lower part of a map."""
        map_.scroll_into_view_if_needed()
        box = map_.bounding_box()
        assert box is not None
        side = box["width"] / grid
        top = box["y"] + box["height"] - box["width"]
        self.tab.mouse.move(box["x"] + (column + 0.5) * side, top + (row + 0.5) * side)


def new_tab(browser: Browser, width: int = 1280) -> Tab:
    """A tab of the browser's one context, which reads and compiles Gradio's scripts once."""
    context = browser.contexts[0] if browser.contexts else browser.new_context()
    tab = context.new_page()
    tab.set_viewport_size({"width": width, "height": 900})
    return tab


def close(tab: Tab) -> None:
    """Close a tab, and forget what its page kept in the browser."""
    tab.evaluate("() => { try { localStorage.clear(); } catch { /* a page without storage */ } }")
    tab.close()


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[App]:
    """A page that may only talk to this machine, and must not complain."""
    tab = new_tab(browser)
    visitor = App(tab, url)
    local = (url, "data:", "blob:")
    tab.on("request", lambda r: None if r.url.startswith(local) else visitor.complaints.append(f"asked for {r.url}"))
    tab.on("console", lambda m: visitor.complaints.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    yield visitor
    complaints = [
        c for c in visitor.complaints if not any(part in c for part in visitor.allowed)
    ]  # leaving a page in the middle of an event makes Gradio complain
    close(tab)
    assert complaints == []


def near(found: Any, expected: torch.Tensor, error: float = ERROR) -> bool:
    return bool((torch.tensor(found, dtype=torch.float64) - expected.double()).abs().max() <= error)
