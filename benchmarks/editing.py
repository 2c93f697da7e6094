"""The least change of one MLP of the sprites mouse, layer by layer, and beside it the other ways to edit a class.

    python -m benchmarks.editing [EDITS]      measure: writes editing.json
    python -m benchmarks.editing page         the table and the picture of docs/editing.md, from editing.json

Docs say how to read the rows. An edit turns one class into another, both drawn; it is made on
training images and measured on test images. Intervals are bootstrap intervals of 95 % over edits, not over images: the
images of one edit share their class.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import prisma
from prisma import bootstrap_interval
from prisma.data import task
from prisma.data.task import Split, coverage
from prisma.editing import (
    WeightEdit,
    class_row,
    covariances,
    edit_class,
    fine_tuning,
    head_edit,
    layer_by_tracing,
    measure_edit,
    steering,
)

HERE = Path(__file__).parent
IMAGES, OLD, TRACED = 6000, 1500, 100
BEGIN, END = "<!-- table -->", "<!-- /table -->"
MEASURES = ("success", "generalisation", "forgotten", "locality", "near_boundary")


def main(edits: int = 8) -> None:
    mouse, sprites = prisma.load("mice/sprites"), task("sprites")
    train, test = sprites.inputs("train", IMAGES), sprites.inputs("test")
    given, layers = (mouse.model, *train), mouse.config.n_layers
    draw = torch.Generator().manual_seed(0)
    pairs = [torch.randperm(mouse.config.n_classes, generator=draw)[:2].tolist() for _ in range(edits)]
    covered = {split: _coverage(x, mouse.config.patch_size) for split, x in sprites.splits.items()}

    def measured(make: Callable[[int, int], WeightEdit]) -> dict[str, Any]:
        rows = []
        for a, b in pairs:
            edit = make(a, b)
            found = measure_edit(mouse.model, edit, *test, a, b, key_images=train[0][edit.about["rows"]])
            rows.append([found.shares[name].value for name in MEASURES])
        values = torch.tensor(rows)
        low, high = bootstrap_interval(lambda some: values[some].mean(0), len(values))
        ends = zip(MEASURES, values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
        return {name: [round(x, 4) for x in three] for name, *three in ends}

    found: dict[str, Any] = {"edits": edits, "images": len(test[1]), "rows": []}
    layer, effect = layer_by_tracing(mouse.model, test[0][:TRACED], covered["test"][:TRACED])
    found["traced"] = {"layer": layer, "effect": [round(x, 4) for x in effect.tolist()]}

    def add(name: str, make: Callable[[int, int], WeightEdit]) -> None:
        found["rows"].append({"edit": name, **measured(make)})
        print(found["rows"][-1], flush=True)
        (HERE / "editing.json").write_text(json.dumps(found, indent=1) + "\n")

    def of_layer(at: int) -> None:
        old = covariances(mouse.model, train[0][:OLD], at)["class"]
        least: dict[str, Any] = {"layer": at, "covariance": old}
        for n in (1, 8, 64):
            images = "1 image" if n == 1 else f"{n} images"
            add(f"layer {at}, key of {images}", partial(edit_class, *given, keys=n, **least))
        if at == layers - 1:
            add(f"layer {at}, 64 keys", partial(edit_class, *given, method="multi-key", **least))

    of_layer(layers - 1)
    add("row of the head", partial(class_row, *given))
    add("4 heads", partial(head_edit, *given))
    add("steering", partial(steering, *given))
    add("fine-tuning, box 0.5", partial(fine_tuning, *given, box=0.5))
    add("fine-tuning, free", partial(fine_tuning, *given, box=None))
    for at in reversed(range(layers - 1)):
        of_layer(at)
    of_old = covariances(mouse.model, train[0][:OLD], 1, ("object",), coverage=covered["train"][:OLD])["object"]
    of_object: dict[str, Any] = {
        "layer": 1,
        "role": "object",
        "coverage": covered["train"][:IMAGES],
        "covariance": of_old,
    }
    add("layer 1, key of 64 objects' patches", partial(edit_class, *given, **of_object))


def _coverage(split: Split, patch_size: int | tuple[int, int]) -> Tensor:
    assert split.masks is not None, "sprites have masks"
    return coverage(split.masks, patch_size).flatten(1)


def table(found: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| edit | {' | '.join(name.replace('_', ' ') for name in MEASURES)} |",
        f"|---|{'---|' * len(MEASURES)}",
    ]
    for row in found["rows"]:
        cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in (row[name] for name in MEASURES)]
        lines.append(f"| {row['edit']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page() -> None:
    """Write the table and the picture of the page."""
    found = json.loads((HERE / "editing.json").read_text())
    path = HERE.parent / "docs" / "editing.md"
    text = path.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    path.write_text(f"{text[:begin]}\n{in_words(found)}\n\n{table(found)}\n\n{text[end:]}")
    draw(found).savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")


def in_words(found: dict[str, Any]) -> str:
    traced = found["traced"]
    effects = ", ".join(f"{x:.3f}" for x in traced["effect"])
    return (
        f"{found['edits']} edits, {found['images']:,} test images. Causal tracing: restoring the output of the MLP at "
        f"the class token gives back {effects} of the class's probability, from layer 0 on; most in layer "
        f"{traced['layer']}."
    )


def draw(found: dict[str, Any]) -> Any:
    """Generalisation and locality of an edit of each layer, by the images of its key; and the effect of each MLP."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for axis, measure in zip(axes, ("generalisation", "locality"), strict=False):
        for images in ("1 image", "8 images", "64 images"):
            end = f", key of {images}"
            of_layer = {x["edit"].removesuffix(end): x[measure] for x in found["rows"] if x["edit"].endswith(end)}
            rows = sorted((int(name.removeprefix("layer ")), x) for name, x in of_layer.items())
            at, values = [layer for layer, _ in rows], torch.tensor([x for _, x in rows])
            axis.plot(at, values[:, 0], marker="o", label=f"key of {images}")
            axis.fill_between(at, values[:, 1], values[:, 2], alpha=0.2)
        axis.set(title=measure, xlabel="layer")
    axes[0].legend()
    effect = found["traced"]["effect"]
    axes[2].bar(range(len(effect)), effect)
    axes[2].set(title="causal tracing: effect of the MLP\nat the class token", xlabel="layer")
    return figure


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        page()
    else:
        main(*map(int, sys.argv[1:]))
