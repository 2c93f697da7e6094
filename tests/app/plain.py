"""The page and its requests without Gradio, on a port of this process: fast to start, and tests may change limits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab
from prisma_app.library import Library
from prisma_app.server import routes
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.app.visitor import close, new_tab

HTML = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Prisma</title>
<link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="prisma/page.css">
<style>body { margin: 16px; } @media (prefers-color-scheme: dark) { body { background: #0b0f19;
--body-text-color: #f3f4f6; --body-text-color-subdued: #a5abb8;
--border-color-primary: #374151; --background-fill-primary: #0b0f19;
--background-fill-secondary: #1b2230; --color-accent: #8fb0f0; } }</style></head>
<body><main id="prisma" class="pz-root"></main><script src="prisma/page.js"></script></body></html>"""


@contextmanager
def plainly_served(library: Library) -> Iterator[str]:
    """The address of the page, while it is served."""

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(HTML)

    app = Starlette(routes=[Route("/", page), *routes(library)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def both_served(mice: Library, pretrained: Library) -> Iterator[str]:
    """The same over the first mouse and the one pretrained model, the mouse first."""
    mouse = mice.names[0]
    names = [mouse, *pretrained.names]
    with plainly_served(Library(names, lambda name: (mice if name == mouse else pretrained).make(name))) as address:
        yield address


@contextmanager
def visited(browser: Browser, url: str, width: int = 1280) -> Iterator[Tab]:
    """A page on which a script error or a complaint in the console is an error of the test."""
    tab, complaints = new_tab(browser, width), list[str]()
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(url)
    yield drawn(tab)
    close(tab)
    assert complaints == []


def drawn(tab: Tab) -> Tab:
    """The page, when the figure of its state is drawn."""
    tab.wait_for_function("window.prisma && window.prisma.ready", timeout=20_000)
    return tab
