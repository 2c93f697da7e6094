"""`prisma edit`: one class becomes another, by the least change of a model's weights."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prisma.cli.shared import JsonOption, ModelOption, out_option, table

if TYPE_CHECKING:
    from prisma.editing.edit_data import EditData
    from prisma.editing.rank_one import Covariance
    from prisma.editing.request import Request
    from prisma.editing.weight_edit import WeightEdit
    from prisma.loaded import Loaded

cli = typer.Typer()
METHODS = ("rank-one", "multi-key", "class-row", "head-edit", "steering", "fine-tuning")
TRACED = 100  # images

ImagesOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="A task, or a folder with a subfolder for each class (default: a mouse's task)."),
]
LayerOption = Annotated[
    str | None,
    typer.Option(help="A number from 0, last (default), or trace: where causal tracing finds the class."),
]
RoleOption = Annotated[str | None, typer.Option(help="Where keys are: class (default), object, background or patches.")]
RidgeOption = Annotated[
    float | None, typer.Option(min=0.0, help="Of the covariance, in units of its mean diagonal (default: 1).")
]
CovarianceOption = Annotated[
    Path | None, typer.Option(help="A covariance on disk, read if it is there, else written for the next edit.")
]
BoxOption = Annotated[
    float | None, typer.Option(help="Of fine-tuning: the largest change, in units of the weight (default: 0.2).")
]


@cli.command(
    epilog="Example: prisma edit --model mice/sprites --from 'square, red' --to 'ring, blue' --out edited; "
    "prisma app --model edited"
)
def edit(
    model: ModelOption,
    source: Annotated[str, typer.Option("--from", metavar="CLASS", help="The class that is edited: name or number.")],
    target: Annotated[str, typer.Option("--to", metavar="CLASS", help="What its images are to be called.")],
    out: Annotated[Path, out_option("A new folder for the edited model.")],
    images: ImagesOption = None,
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = METHODS[0],
    keys: Annotated[int, typer.Option(min=1, help="Images of the class that the edit is made with.")] = 64,
    layer: LayerOption = None,
    role: RoleOption = None,
    copies: Annotated[int | None, typer.Option(min=0, help="Shifted copies of each of these images.")] = None,
    ridge: RidgeOption = None,
    covariance: CovarianceOption = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Of head-edit: how many heads (default: 4).")] = None,
    box: BoxOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only N images to make the edit.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images.")] = 0,
    hub: Annotated[Path | None, typer.Option("--hub", help="Folder hub of a published mouse.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a published model, such as step-000128.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit a model so that it calls the images of a class by another name, and all others as before.

    The folder holds the edited model, the edit, the weights as they were, and a card; `prisma app` compares both, and
    `prisma publish --base-model` publishes it. What the edit does is measured on images that it was not made with.
    """
    from prisma.editing.edit_class import expect_settings
    from prisma.editing.edit_data import edit_data
    from prisma.editing.folder import write_edited
    from prisma.editing.keys import class_of
    from prisma.editing.measuring import measure_edit
    from prisma.files import expect_empty
    from prisma.loaded import load
    from prisma.publish.artefacts.edited_model import write_card

    named = {
        "layer": layer, "role": role, "copies": copies, "ridge": ridge, "covariance": covariance, "heads": heads,
        "box": box,
    }  # fmt: skip
    settings: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    expect_settings(method, settings)
    expect_empty(out)
    loaded = load(model, revision, hub)
    a, b = (class_of(name, loaded.config.n_classes, loaded.labels) for name in (source, target))
    data = edit_data(images or _task_of(model), loaded, limit, seed)
    found = _made(loaded, data, a, b, method, keys, seed, settings)
    keyed = data.images[list(found.about["rows"])]
    measures = measure_edit(loaded.model, found, data.test_images, data.test_labels, a, b, key_images=keyed)
    write_edited(out, loaded, found, measures)
    write_card(out)
    if as_json:
        print(json.dumps({"edit": dict(found.about), "measures": measures.to_dict(), "folder": str(out)}, indent=2))
        return
    print(table(measures.rows()))
    print(f"Edited {', '.join(part.weight for part in found.parts)}. The edited model is in {out}.")


def _made(
    loaded: "Loaded", data: "EditData", a: int, b: int, method: str, keys: int, seed: int, settings: dict[str, Any]
) -> "WeightEdit":
    """The edit, with the settings that were given as text turned into values."""
    from prisma.editing.edit_class import edit_class
    from prisma.editing.request import Request

    role = settings.get("role", "class")
    covered = data.coverage if role in ("object", "background") else None
    if "layer" in settings:
        settings["layer"] = _layer(loaded, data, settings["layer"], role)
    if "covariance" in settings:
        asked = Request.of(loaded.model, data.images, data.labels, a, b, loaded.labels, keys, covered, seed)
        settings["covariance"] = _covariance(settings["covariance"], asked, asked.layer(settings.get("layer")), role)
    chosen: dict[str, Any] = {"keys": keys, "names": loaded.labels, "coverage": covered, "seed": seed}
    return edit_class(loaded.model, data.images, data.labels, a, b, method=method, **chosen, **settings)


def _covariance(path: Path, asked: "Request", layer: int, role: str) -> "Covariance":
    """The covariance on disk; one that is not there is computed and written."""
    from prisma.editing.rank_one import Covariance

    if path.exists():
        return Covariance.read(path)
    found = asked.covariance(layer, role)
    found.write(path)
    return found


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
    if data.coverage is None:
        raise PrismaError("expected images with object masks for --layer trace; found none: give a number, or last")
    with torch.no_grad():
        right = loaded.model(data.images[: 4 * TRACED]).argmax(-1) == data.labels[: 4 * TRACED]
    rows = (right & (data.coverage[: 4 * TRACED] > 0).any(1)).nonzero()[:TRACED, 0]
    layer, effect = layer_by_tracing(loaded.model, data.images[rows], data.coverage[rows], role=role)
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
