"""Build the app, and serve it on this machine only.

Importing torch takes as long as all the rest, and the page needs no model to open. So nothing here imports it, and what
does is imported by name when the address is printed; whoever asks for a figure before it is there waits for it.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.routing import Mount

from prisma.errors import PrismaError
from prisma_app.api import ENDPOINTS, offer
from prisma_app.guard import Guard
from prisma_app.later import Later, LaterApp
from prisma_app.shell import gr
from prisma_app.theme import CSS, HEAD, theme

if TYPE_CHECKING:
    from prisma_app.library import Library

HOST, FIRST_PORT, PORTS = "127.0.0.1", 7860, 100
LAUNCH: Mapping[str, Any] = {
    "css": CSS,
    "head": HEAD,
    "share": False,
    "show_error": False,
    "allowed_paths": [],
    "max_file_size": "8mb",
    "enable_monitoring": False,
    "run_history": False,
    "strict_cors": True,
    "ssr_mode": False,
    "mcp_server": False,
    "footer_links": [],
}
"""What `launch` needs here and on a Space alike."""


def page_of(library: "Callable[[], Library]") -> gr.Blocks:
    """The page, and what programs can ask it (`prisma_app.api`). The page itself is the viewer, of `prisma.view`."""
    with gr.Blocks(title="Prisma", analytics_enabled=False) as blocks:
        # The template holds no placeholder: Gradio evaluates what it puts into one, and a label could be code.
        gr.HTML('<div id="prisma" class="pz-root"></div>', apply_default_css=False, padding=False)
        offer(library)
    return blocks


def launch(library: "Callable[[], Library]", **how: Any) -> tuple[gr.Blocks, str]:
    """Start the server of a library, which the first figure asks for, and return the page and its address."""
    blocks = page_of(library)
    open_ = ("/prisma/", "/gradio_api/mcp") if how.get("mcp_server") else ("/prisma/",)
    asked = Mount("/prisma", app=LaterApp(lambda: import_module("prisma_app.server").app_of(library())))
    inside = {"routes": [asked], "middleware": [Middleware(Guard, endpoints=ENDPOINTS, open_=open_)]}
    settings: dict[str, Any] = {**LAUNCH, "theme": theme(), "app_kwargs": inside, **how}
    return blocks, str(blocks.launch(**settings)[1])


def serve(
    hub: Path | None,
    model: str | None = None,
    port: int | None = None,
    *,
    prompts: Sequence[str] = (),
    mcp: bool = False,
    block: bool = True,
) -> gr.Blocks:
    """Serve the page on 127.0.0.1, at `port` or the first free one from 7860, and print the address.

    Args:
        hub, model, prompts: as `library_of`.
        mcp: offer the endpoints as tools of the Model Context Protocol too, at /gradio_api/mcp/.
        block: serve until an exception, such as KeyboardInterrupt, stops it; otherwise return at once
            (`blocks.local_url`, `blocks.close()`).

    Raises:
        PrismaError: as `library_of`, or the port is not free.
    """
    if port is not None and not _is_free(port):
        raise PrismaError(f"expected a free port; found port {port} in use")
    if mcp and find_spec("mcp") is None:
        raise PrismaError("expected the package mcp for --mcp; found none: pip install 'prisma-vit[mcp]' installs it")
    library: Later[Library] = Later(lambda: import_module("prisma_app.library").library_of(hub, model, prompts))
    if prompts or not _is_plain(hub, model):
        library()  # a mistake is said before anything opens
    blocks, url = _launch(library, [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS), mcp)
    try:
        print(f"Prisma is open at {url}", flush=True)  # noqa: T201
        library()
        while block:
            time.sleep(1)
    except BaseException:  # an interrupt too
        blocks.close(verbose=False)
        raise
    return blocks


def _is_plain(hub: Path | None, model: str | None) -> bool:
    """Whether it is plain to see that these mice exist: those in the package, or those of a folder hub."""
    if model is not None and model.startswith("mice/"):
        return (files("prisma") / model).is_dir()
    if hub is None:
        return model is None
    wanted = None if model is None else f"models--{model.replace('/', '--')}"
    return any((folder / "refs/main").is_file() for folder in hub.glob("models--*--*") if wanted in (None, folder.name))


def _launch(library: "Callable[[], Library]", ports: Sequence[int], mcp: bool) -> tuple[gr.Blocks, str]:
    """Serve at the first of these ports that is free, and return the page and the address.

    Raises:
        PrismaError: none of them is free.
    """
    for port in filter(_is_free, ports):
        with suppress(OSError):  # another program took the port since it was found free
            how: dict[str, Any] = {"server_name": HOST, "server_port": port, "quiet": True, "mcp_server": mcp}
            return launch(library, prevent_thread_lock=True, **how)
    raise PrismaError(f"expected a free port from {ports[0]} to {ports[-1]}; found none")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0
