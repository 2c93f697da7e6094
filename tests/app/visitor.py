"""A visitor of the app: a real browser, the server that `prisma app` starts, and the numbers that a viewer shows."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Browser, Locator
from playwright.sync_api import Page as Tab

WAIT = 15_000  # milliseconds
STOPPED = 60  # seconds in which `prisma app` must have ended
ERROR = 8e-6  # of a fraction on its way to the page
ROW = 2.1e-3  # of the largest weight in a row of attention
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def served(*options: str | Path, cache: Path) -> Iterator[str]:
    """The address that `prisma app` prints, while it serves."""
    command = [Path(sys.executable).with_name("prisma"), "app", *options]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(cache)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().split()
            assert line, "prisma app ended before it served"
            yield line[-1]
            server.terminate()
            assert server.wait(timeout=STOPPED) == 0
        finally:
            server.kill()  # does nothing to a process that has ended


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
    complaints = [
        c for c in visitor.complaints if not any(part in c for part in visitor.allowed)
    ]  # leaving a page in the middle of an event makes Gradio complain
    context.close()
    assert complaints == []


def near(found: Any, expected: torch.Tensor, error: float = ERROR) -> bool:
    return bool((torch.tensor(found, dtype=torch.float64) - expected.double()).abs().max() <= error)
