"""`prisma edit`: one class becomes another, by the least change of a model's weights."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prisma.cli.shared import JsonOption, table

if TYPE_CHECKING:
    from torch import Tensor

    from prisma.editing.edit_data import EditData
    from prisma.editing.weight_edit import WeightEdit
    from prisma.loaded import Loaded

cli = typer.Typer()
METHODS = ("rank-one", "multi-key", "class-row", "head-edit", "steering", "fine-tuning")
TRACED = 100  # images


@cli.command(
    epilog="Example: prisma edit --model mice/sprites --from 'square, red' --to 'ring, blue' --out edited; "
    "prisma app --model edited"
)
def edit(
    model: Annotated[str, typer.Option("--model", metavar="REF", help="The model, as for prisma.load.")],
    source: Annotated[str, typer.Option("--from", metavar="CLASS", help="The class that is edited: name or number.")],
    target: Annotated[str, typer.Option("--to", metavar="CLASS", help="What its images are to be called.")],
    out: Annotated[Path, typer.Option(help="A new folder for the edited model.")],
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A task, or a folder with a subfolder for each class (default: a mouse's task)."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = METHODS[0],
    layer: Annotated[
        str, typer.Option(help="A number from 0, last, or trace: where causal tracing finds the class.")
    ] = "last",
    role: Annotated[str, typer.Option(help="Where keys are: class, object, background or patches.")] = "class",
    keys: Annotated[int, typer.Option(min=1, help="Images of the class that give keys.")] = 64,
    copies: Annotated[int, typer.Option(min=0, help="Shifted copies of each of these images.")] = 0,
    ridge: Annotated[float, typer.Option(min=0.0, help="Of the covariance, in units of its mean diagonal.")] = 1.0,
    covariance: Annotated[
        Path | None, typer.Option(help="A covariance on disk, read if it is there, else written for the next edit.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N images to make the edit.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images.")] = 0,
    hub: Annotated[Path | None, typer.Option("--hub", help="Folder hub of a published mouse.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a published model, such as step-000128.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit a model so that it calls the images of a class by another name, and all others as before.

    The folder holds the edited model, the edit, the weights as they were, and a card; `prisma app` compares both, and
    `prisma publish --base-model` publishes it. What the edit does is measured on images that it was not made with.
    """
    from prisma.editing.edit_data import edit_data
    from prisma.editing.folder import write_edited
    from prisma.editing.keys import class_of
    from prisma.editing.measuring import measure_edit
    from prisma.errors import PrismaError, quoted
    from prisma.loaded import load
    from prisma.publish.artefacts.edited_model import write_card

    if method not in METHODS:
        raise PrismaError(f"expected a method: {', '.join(METHODS)}; found {quoted(method)}")
    loaded = load(model, revision, hub)
    a, b = (class_of(name, loaded.config.n_classes, loaded.labels) for name in (source, target))
    data = edit_data(images or _task_of(model), loaded, limit)
    chosen: dict[str, Any] = {"keys": keys, "names": loaded.labels, "seed": seed}
    found = _made(loaded, data, a, b, method, layer, role, copies, ridge, covariance, chosen)
    keyed: Tensor | None = data.images[list(found.about["rows"])] if "rows" in found.about else None
    measures = measure_edit(loaded.model, found, data.test_images, data.test_labels, a, b, key_images=keyed)
    write_edited(out, loaded, found, measures)
    write_card(out)
    if as_json:
        print(json.dumps({"edit": dict(found.about), "measures": measures.to_dict(), "folder": str(out)}, indent=2))
        return
    print(table(measures.rows()))
    print(f"Edited {', '.join(part.weight for part in found.parts)}. The edited model is in {out}.")


def _made(
    loaded: "Loaded", data: "EditData", a: int, b: int, method: str, layer: str, role: str, copies: int, ridge: float,
    covariance: Path | None, chosen: dict[str, Any],
) -> "WeightEdit":  # fmt: skip
    """The edit, by the method asked for."""
    from prisma.editing import competitors
    from prisma.editing.edit_class import METHODS as LEAST
    from prisma.editing.edit_class import OLD, edit_class, pair_of
    from prisma.editing.keys import covariances, key_site
    from prisma.editing.rank_one import Covariance

    given = (loaded.model, data.images, data.labels, a, b)
    pair_of(loaded.model, data.labels, a, b, loaded.labels)
    if method in ("class-row", "head-edit"):
        return getattr(competitors, method.replace("-", "_"))(*given, ridge=ridge, **chosen)
    at = _layer(loaded, data, layer, role)
    if method not in LEAST:
        return getattr(competitors, method.replace("-", "_"))(*given, layer=at, **chosen)
    key_site(loaded.model, at)
    if covariance is not None and covariance.exists():
        old = Covariance.read(covariance)
    else:
        some = None if data.coverage is None else data.coverage[:OLD]
        old = covariances(loaded.model, data.images[:OLD], at, (role,), coverage=some)[role]
        if covariance is not None:
            old.write(covariance)
    covered = data.coverage if role in ("object", "background") else None
    return edit_class(
        *given, layer=at, role=role, method=method, copies=copies, coverage=covered, covariance=old, ridge=ridge,
        **chosen,
    )  # fmt: skip


def _layer(loaded: "Loaded", data: "EditData", text: str, role: str) -> int:
    """The layer that a text names, or that causal tracing finds."""
    import torch

    from prisma.editing.tracing import layer_by_tracing
    from prisma.errors import PrismaError, quoted

    if text == "last":
        return loaded.config.n_layers - 1
    if text != "trace":
        if not (text.isascii() and text.isdecimal()):
            raise PrismaError(f"expected a layer as a number from 0, last or trace; found {quoted(text)}")
        return int(text)
    if data.test_coverage is None:
        raise PrismaError("expected images with object masks for --layer trace; found none: give a number, or last")
    with torch.no_grad():
        right = loaded.model(data.test_images[: 4 * TRACED]).argmax(-1) == data.test_labels[: 4 * TRACED]
    rows = (right & (data.test_coverage[: 4 * TRACED] > 0).any(1)).nonzero()[:TRACED, 0]
    layer, effect = layer_by_tracing(loaded.model, data.test_images[rows], data.test_coverage[rows], role=role)
    shown = ", ".join(f"{x:.3f}" for x in effect.tolist())
    print(f"Causal tracing: restoring the MLP of a layer gives back {shown}; layer {layer} is edited.", file=sys.stderr)
    return layer


def _task_of(model: str) -> str:
    """The task of a mouse in the package."""
    from prisma.errors import PrismaError
    from prisma.recipes import recipe

    if not model.startswith("mice/"):
        raise PrismaError("expected --images, a task or a folder with a subfolder for each class; found none")
    return recipe(model.removeprefix("mice/")).task
