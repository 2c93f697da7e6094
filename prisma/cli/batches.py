"""`prisma batch`: the images of a step of training."""

import json
from pathlib import Path
from typing import Annotated

import typer

from prisma.cli.shared import JsonOption, out_option

cli = typer.Typer()


@cli.command(epilog="Example: prisma batch runs/digits --step 128 --out batches")
def batch(
    run: Annotated[str, typer.Argument(help="A run folder, or OWNER/NAME of a published mouse.")],
    step: Annotated[int, typer.Option(help="A training step, from 0 to the last.")],
    out: Annotated[Path, out_option("Folder for the picture and the tensors.")] = Path("batches"),
    hub: Annotated[
        Path | None, typer.Option("--hub", help="Folder hub of a published mouse (default: the Hugging Face Hub).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the images that a step of training saw.

    They are written as a picture, row by row in the order of the batch, and as tensors: indices, labels, images, and
    inputs as the model got them.
    """
    from prisma.train.batches import batch_of

    found = batch_of(run, step, hub)
    picture, tensors = found.write(out)
    if as_json:
        print(json.dumps({**found.to_dict(), "picture": str(picture), "tensors": str(tensors)}, indent=2))
    else:
        print(f"The {len(found.labels)} images of step {step} are in {picture} and {tensors}.")
