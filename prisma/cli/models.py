"""`prisma models`: the families of pretrained models that load, and how exactly they equal their own library."""

import json
from typing import Annotated, Any

import typer

from prisma.cli.shared import JsonOption, table

cli = typer.Typer()

TOLERANCE = 1e-3  # relative difference that rounding may cause in float32, with real weights of many layers


@cli.command(epilog="Example: prisma models --check timm/vit_base_patch16_224.augreg_in21k")
def models(
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="REF", help="Model to check: timm/..., hf/..., open_clip/..., or a folder."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the images to check with, in pixels.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the pretrained models that load, and how exactly.

    For each family, the largest differences from its own library.

    With --check, compare Prisma with the model's own library on the model's own weights: the largest difference of the
    output and of the residual stream after every layer, relative to the largest value there. The exit code is 1 if one
    is above 1e-3.
    """
    if check is None:
        from prisma.pretrained.verified import proofs, summary

        rows = summary(proofs())
        print(json.dumps(rows, indent=2) if as_json else table([_readable(row) for row in rows]))
        return
    from prisma.pretrained.loading import check as compare

    found = compare(check, image_size=image_size)
    rows = [
        {"tower": tower, "where": where, "difference": difference}
        for tower, parity in found.items()
        for where, difference in [
            *((f"layer {i}", x) for i, x in enumerate(parity.residuals)),
            ("output", parity.output),
        ]
    ]
    print(json.dumps(rows, indent=2) if as_json else table([_readable(row) for row in rows]))
    if not all(row["difference"] <= TOLERANCE for row in rows):
        raise typer.Exit(1)


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers with two digits, and a dash where nothing was measured."""
    return {
        name: "-" if value is None else f"{value:.1e}" if isinstance(value, float) else value
        for name, value in row.items()
    }
