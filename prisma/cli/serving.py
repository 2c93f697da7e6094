"""`prisma app`: the app, on this machine."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from prisma.cli.shared import HubOption

cli = typer.Typer()
HUB = Path("hub")  # the default; where there is none, the app shows the mice in the package
STOPPING = (signal.SIGINT, signal.SIGTERM)


@cli.command(epilog="Example: prisma app --hub hub --model prisma/digits; prisma app --model my-clip-folder")
def app(
    hub: HubOption = HUB,
    model: Annotated[str | None, typer.Option(metavar="REF", help="A mouse, or one pretrained model.")] = None,
    prompts: Annotated[str, typer.Option(help="The classes of a CLIP, separated by commas.")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the first free port from 7860.")] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Offer the endpoints as tools for language models too.")] = False,
) -> None:
    """Open the app on this machine.

    It serves attention, logit lens, patching, training, decomposition, steering, latents and units at every checkpoint
    of the mice in a folder hub, on 127.0.0.1. Where there is no folder `hub`, it shows the mice in the package.

    Or for one pretrained model: --model a folder, timm/..., hf/..., open_clip/...; for a CLIP, --prompts are its
    classes. Ctrl-C or SIGTERM ends it.
    """
    known = None if hub == HUB and not hub.is_dir() and model is None else hub
    serve(known, model, port, [prompt.strip() for prompt in prompts.split(",") if prompt.strip()], mcp=mcp)


def serve(
    hub: Path | None, model: str | None, port: int | None, prompts: Sequence[str] = (), *, mcp: bool = False
) -> None:
    """Serve the app until SIGINT or SIGTERM, and then exit with code 0."""
    with ending_on_signals():
        # By name, because imports run one way: the app imports prisma, and this command only starts it.
        import_module("prisma_app.main").serve(hub, model, port=port, prompts=prompts, mcp=mcp)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM end this process with exit code 0; a second signal ends it at once.

    Both are set explicitly, because Python has no handler for SIGINT in a process that was started with SIGINT
    ignored, as every background job of a shell script is.
    """
    before = {number: signal.signal(number, _end) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    for other in STOPPING:
        signal.signal(other, _end_at_once)
    raise SystemExit(0)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(0)
