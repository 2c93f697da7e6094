"""`prisma models`: the pretrained models that load, and how exactly."""

import json
from typing import Annotated, Any

import typer

from prisma.cli.shared import JsonOption, table

cli = typer.Typer()

SAME = 1e-3  # relative difference that rounding may make, in float32 and real weights of many layers


@cli.command(epilog="Example: prisma models --check timm/vit_base_patch16_224.augreg_in21k")
def models(
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="REF", help="A name (timm/..., hf/..., open_clip/...) or a saved folder."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Check at this image size, in pixels.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the families of pretrained models that load, and to what error each was verified against its own library.

    With --check, compare a model's own weights: the largest difference of its outputs and of every layer's residual
    stream, relative to the largest value there. Exit code 1 if one is above 1e-3.
    """
    if check is None:
        from prisma.pretrained.verified import proofs, summary

        rows = summary(proofs())
        print(json.dumps(rows, indent=2) if as_json else table([_readable(row) for row in rows]))
        return
    from prisma.pretrained.opening import check as compare

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
    if not all(row["difference"] <= SAME for row in rows):
        raise typer.Exit(1)


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Errors in two digits, and a dash where nothing was measured."""
    return {
        name: "-" if value is None else f"{value:.1e}" if isinstance(value, float) else value
        for name, value in row.items()
    }
