"""The least change of one MLP of the sprites mouse, layer by layer, and beside it the other ways to edit a class.

    python benchmarks/editing.py [EDITS]

Writes editing.json and the table of docs/editing.md. An edit turns one class into another, both drawn; it is made on
training images and measured on test images. Intervals are bootstrap intervals of 95 % over edits, not over images: the
images of one edit share their class.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import prisma
from prisma import bootstrap_interval
from prisma.data import task
from prisma.data.task import coverage
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
MEASURES = ("success", "generalisation", "forgotten", "locality", "near_boundary")


def main(edits: int = 8) -> None:
    mouse, sprites = prisma.load("mice/sprites"), task("sprites")
    train, test = sprites.inputs("train", IMAGES), sprites.inputs("test")
    given, layers = (mouse.model, *train), mouse.config.n_layers
    draw = torch.Generator().manual_seed(0)
    pairs = [torch.randperm(mouse.config.n_classes, generator=draw)[:2].tolist() for _ in range(edits)]
    covered = {x: coverage(sprites.splits[x].masks, mouse.config.patch_size).flatten(1) for x in ("train", "test")}

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

    of_old = covariances(mouse.model, train[0][:OLD], 1, ("object",), coverage=covered["train"][:OLD])["object"]
    of_object: dict[str, Any] = {
        "layer": 1,
        "role": "object",
        "coverage": covered["train"][:IMAGES],
        "covariance": of_old,
    }
    add("layer 1, key of 64 objects' patches", lambda a, b: edit_class(*given, a, b, **of_object))
    add("row of the head", lambda a, b: class_row(*given, a, b))
    add("4 heads", lambda a, b: head_edit(*given, a, b))
    add("steering", lambda a, b: steering(*given, a, b))
    add("fine-tuning, box 0.5", lambda a, b: fine_tuning(*given, a, b, box=0.5))
    add("fine-tuning, free", lambda a, b: fine_tuning(*given, a, b, box=None))
    for at in reversed(range(layers)):
        old = covariances(mouse.model, train[0][:OLD], at)["class"]
        least: dict[str, Any] = {"layer": at, "covariance": old}
        for n in (1, 8, 64):
            images = "1 image" if n == 1 else f"{n} images"
            add(f"layer {at}, key of {images}", lambda a, b, n=n, k=least: edit_class(*given, a, b, keys=n, **k))
        if at == layers - 1:
            add(f"layer {at}, 64 keys", lambda a, b, k=least: edit_class(*given, a, b, method="multi-key", **k))


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


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
