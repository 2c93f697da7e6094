"""`prisma app`: the app, on this machine."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from prisma.cli.shared import HubOption

cli = typer.Typer()


@cli.command(epilog="Example: prisma app --hub hub --model prisma/digits; prisma app --model my-clip-folder")
def app(
    hub: HubOption = Path("hub"),
    model: Annotated[str | None, typer.Option(metavar="REF", help="A mouse, or one pretrained model.")] = None,
    prompts: Annotated[str, typer.Option(help="The classes of a CLIP, separated by commas.")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the first free port from 7860.")] = None,
) -> None:
    """Serve the app on 127.0.0.1: attention, logit lens and patching over every checkpoint of a folder hub.

    Or over one pretrained model: --model a folder, timm/..., hf/..., open_clip/...; the classes of a CLIP are prompts.
    """
    serve(hub, model, port, [prompt.strip() for prompt in prompts.split(",") if prompt.strip()])


def serve(hub: Path, model: str | None, port: int | None, prompts: Sequence[str] = ()) -> None:
    # By name, because imports run one way: the app imports prisma, and this command only starts it.
    import_module("app.main").serve(hub, model, port=port, prompts=prompts)
