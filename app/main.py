"""Build the app, and serve it on this machine alone."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.models import Mouse, mice
from app.page import lay_out, wire
from app.pretrained import Pretrained
from app.subject import Subject
from app.theme import CSS, theme
from prisma.errors import PrismaError, nearest
from prisma.pretrained.loading import PREFIXES, is_folder
from prisma.repository import Published, published_in

HOST, FIRST_PORT, PORTS = "127.0.0.1", 7860, 100


def build(hub: Path | None, model: str | None = None, prompts: Sequence[str] = ()) -> gr.Blocks:
    """The page over every mouse of a folder hub, over one mouse of the Hugging Face Hub (`hub=None`), or over `model`.

    Args:
        model: what to open on: a mouse; or a folder, or a name in another library (see `prisma.load`), alone.
        prompts: the classes of a CLIP.

    Raises:
        PrismaError: no such hub, nothing in it, or `model` is not there or cannot be shown.
    """
    known, make = _offer(hub, model, prompts)

    def find(name: Any) -> Subject:
        if name not in known:
            raise PrismaError(f"there is no model {str(name)[:80]!r} here; the nearest: {nearest(str(name), known)}")
        return make(name)

    with gr.Blocks(title="Prisma", analytics_enabled=False, delete_cache=(3600, 7200)) as blocks:
        first = model if model in known else known[0]
        wire(blocks, lay_out(known, first), find, [first, *(name for name in known if name != first)])
    return blocks


def _offer(hub: Path | None, model: str | None, prompts: Sequence[str]) -> tuple[list[str], Callable[[str], Subject]]:
    """Names, and what makes a subject of one. A mouse of the hub comes before a folder of the same name."""
    published = hub is not None and hub.is_dir() and model in published_in(hub)
    if model is not None and not published and (is_folder(model) or model.partition("/")[0] in PREFIXES):
        only = Pretrained(model, prompts)
        return [only.name], lambda _: only
    if prompts:
        raise PrismaError(f"prompts are the classes of a CLIP, from a folder or a library; found model={model!r}")
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
        block: serve until interrupted; otherwise return at once (`blocks.local_url`, `blocks.close()`).

    Raises:
        PrismaError: as `build`, or the port is not free.
    """
    chosen = _free_port() if port is None else _expect_free(port)
    blocks = build(hub, model, prompts)
    _, url, _ = blocks.launch(
        share=False,
        server_name=HOST,
        server_port=chosen,
        theme=theme(),
        css=CSS,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        allowed_paths=[],
        max_file_size="8mb",
        enable_monitoring=False,
        run_history=False,
        strict_cors=True,
        ssr_mode=False,
        mcp_server=False,
        footer_links=[],
    )
    print(f"Prisma is open at {url}", flush=True)  # noqa: T201
    if block:
        blocks.block_thread()
    return blocks


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _is_free(port):
            return port
    raise PrismaError(f"expected a free port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1}, found none")


def _expect_free(port: int) -> int:
    if not _is_free(port):
        raise PrismaError(f"expected port {port} to be free, found it taken")
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0
