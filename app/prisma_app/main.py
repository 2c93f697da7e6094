"""Build the app, and serve it on this machine only."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from prisma.errors import PrismaError, nearest, quoted, shown
from prisma.filesystem import given
from prisma.pretrained.loading import is_folder
from prisma.pretrained.references import PREFIXES
from prisma.repository import Published, published_in
from prisma_app.api import offer
from prisma_app.models import Mouse, mice
from prisma_app.page import lay_out, wire
from prisma_app.pretrained import Pretrained
from prisma_app.subject import Subject
from prisma_app.theme import CSS, theme

HOST, FIRST_PORT, PORTS = "127.0.0.1", 7860, 100
LAUNCH: Mapping[str, Any] = {
    "css": CSS,
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
"""What `blocks.launch(theme=theme(), **LAUNCH)` needs here and on a Space alike."""


def build(hub: Path | None, model: str | None = None, prompts: Sequence[str] = ()) -> gr.Blocks:
    """The page over every mouse of a folder hub, over one mouse of the Hugging Face Hub (`hub=None`), or over `model`.

    Args:
        model: the first model to show: a mouse of the hub. Or the only one: a folder, or a name in another library
            (see `prisma.load`).
        prompts: the classes of a CLIP.

    Raises:
        PrismaError: the hub does not exist or is empty, or `model` does not exist or cannot be shown.
    """
    known, make = _offer(hub, model, prompts)
    return page_of(known, make, model if model in known else known[0])


def page_of(known: Sequence[str], make: Callable[[str], Subject], first: str, build: str | None = None) -> gr.Blocks:
    """The page over the models of these names, and what programs can ask it (`prisma_app.api`).

    Args:
        make: the model of a name.
        first: the model to show first.
        build: what tells one build of a Space from another.
    """

    def find(name: Any) -> Subject:
        if name not in known:
            raise PrismaError(f"there is no model {quoted(name)} here; the nearest: {nearest(shown(name), known)}")
        return make(name)

    with gr.Blocks(title="Prisma", analytics_enabled=False, delete_cache=(3600, 7200)) as blocks:
        wire(blocks, lay_out(known, first), find, [first, *(name for name in known if name != first)])
        offer(find, known, build)
    return blocks


def _offer(hub: Path | None, model: str | None, prompts: Sequence[str]) -> tuple[list[str], Callable[[str], Subject]]:
    """The names of the models, and a function from name to model. A mouse goes before a folder of the same name."""
    hub = None if hub is None else given(hub)
    published = hub is not None and hub.is_dir() and model in published_in(hub)
    if model is not None and not published and (is_folder(model) or model.partition("/")[0] in PREFIXES):
        only = Pretrained(model, prompts)
        return [only.name], lambda _: only
    if prompts:
        raise PrismaError(f"prompts are the classes of a CLIP from a folder or a library; found model={model!r}")
    return mice(hub, model), lambda name: Mouse(Published(name, hub))


def serve(
    hub: Path | None,
    model: str | None = None,
    port: int | None = None,
    *,
    prompts: Sequence[str] = (),
    block: bool = True,
) -> gr.Blocks:
    """Serve the page on 127.0.0.1, at `port` or the first free one from 7860, and print the address.

    Args:
        model, prompts: as `build`.
        block: serve until an exception, such as KeyboardInterrupt, stops it; otherwise return at once
            (`blocks.local_url`, `blocks.close()`).

    Raises:
        PrismaError: as `build`, or the port is not free.
    """
    if port is not None and not _is_free(port):
        raise PrismaError(f"expected a free port; found port {port} in use")
    blocks = build(hub, model, prompts)
    url = _launch(blocks, [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS))
    print(f"Prisma is open at {url}", flush=True)  # noqa: T201
    if block:
        _wait(blocks)
    return blocks


def _wait(blocks: gr.Blocks) -> None:
    """Serve until an exception, such as KeyboardInterrupt, arrives in this thread; then close the server."""
    try:
        while True:
            time.sleep(1)
    finally:
        blocks.close(verbose=False)


def _launch(blocks: gr.Blocks, ports: Sequence[int]) -> str:
    """Serve at the first of these ports that is free, and return the address.

    Raises:
        PrismaError: none of them is free.
    """
    for port in filter(_is_free, ports):
        with suppress(OSError):  # another program took the port since it was found free
            how: dict[str, Any] = {"server_name": HOST, "server_port": port, "quiet": True, **LAUNCH}
            return str(blocks.launch(theme=theme(), prevent_thread_lock=True, **how)[1])
    raise PrismaError(f"expected a free port from {ports[0]} to {ports[-1]}; found none")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0
