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
