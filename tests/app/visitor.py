"""A visitor of the app: a real browser, the server that `prisma app` starts, and the numbers that a viewer shows."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def served(hub: Path | None, model: Path | str, prompts: Sequence[str] = ()) -> Iterator[str]:
    """The address of the app, served by this process, which has imported all; `tests/cli` and `tests/e2e` start it."""
    with closed_loops():
        blocks = serve(hub, str(model), prompts=prompts, block=False)
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

    def open(self, query: str = "") -> "App":
        self.tab.goto(self.url + query)
        return self

    def state(self, name: str, wanted: str = "true") -> Any:
        """The numbers that a viewer shows, as soon as they satisfy a condition on `s`."""
        test = f"() => {{ const s = window.__prisma?.[{name!r}]; return s && ({wanted}) ? s : null; }}"
        return self.tab.wait_for_function(test, timeout=WAIT).json_value()

    def panel(self, name: str) -> Locator:
        return self.tab.locator(f"#pz-{name}")

    def over(self, map_: Locator, column: float, row: float, grid: int = 4) -> None:
        """Move the pointer to a patch; the patches are the lower part of a map."""
        map_.scroll_into_view_if_needed()
        box = map_.bounding_box()
        assert box is not None
        side = box["width"] / grid
        top = box["y"] + box["height"] - box["width"]
        self.tab.mouse.move(box["x"] + (column + 0.5) * side, top + (row + 0.5) * side)


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[App]:
    """A page that may only talk to this machine, and must not complain."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    visitor = App(tab, url)
    local = (url, "data:", "blob:")
    tab.on("request", lambda r: None if r.url.startswith(local) else visitor.complaints.append(f"asked for {r.url}"))
    tab.on("console", lambda m: visitor.complaints.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    yield visitor
    complaints = list(visitor.complaints)  # leaving a page in the middle of an event makes Gradio complain
    context.close()
    assert complaints == []


def near(found: Any, expected: torch.Tensor, error: float = ERROR) -> bool:
    return bool((torch.tensor(found, dtype=torch.float64) - expected.double()).abs().max() <= error)
