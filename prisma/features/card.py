"""A page that says what was visualised, with a row for each image and how to read it. All numbers are the result's."""

from collections.abc import Mapping, Sequence
from typing import Any

from prisma.errors import shown
from prisma.features.visualize import Features

READ = """An optimised image shows what a unit *can* be driven by, not what it answers to in real images. Trust it where

- `percentile` is high: so many percent of the data have a smaller activation than the image, without random changes;
- `path` is nearer to `natural` than to `other`: rank correlations of the activations of the last layer, of the image
  with the unit's top images, of those with each other, and of those with other images (Geirhos et al. 2306.04719);
- the top images look alike, and like the image;
- a model of another seed gives it the same class (of logits alone: units inside a model have no counterpart)."""


def card(
    found: Features,
    labels: Sequence[str],
    provenance: Mapping[str, Any],
    sheet: str | None,
    second_labels: Sequence[str] = (),
) -> str:
    """Markdown.

    Args:
        labels: names of the classes.
        provenance: where the models and images came from.
        sheet: the file name of the contact sheet.
        second_labels: names of the classes of the second model.
    """
    settings = found.metadata
    rows = [_row(found, i, labels, second_labels) for i in range(len(found.images))]
    head = list(rows[0])
    table = [head, ["---"] * len(head), *([row[name] for name in head] for row in rows)]
    done = {**provenance, **{name: settings[name] for name in ("image", "steps", "seed", "lr", "robustness", "data")}}
    lines = [
        "# Feature visualisation",
        "",
        *([f"![Optimised images and the real images with the largest activation]({sheet})", ""] if sheet else []),
        *("| " + " | ".join(_cell(x) for x in row) + " |" for row in table),
        "",
        "## How to read it",
        "",
        READ,
        "",
        "## What was done",
        "",
        *(f"- {name}: {_cell(str(value))}" for name, value in done.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(found: Features, i: int, labels: Sequence[str], second_labels: Sequence[str]) -> dict[str, str]:
    target = int(found.target[i])
    row = {"unit": _named(found.metadata["targets"][target], labels), "activation": f"{found.activation[i]:.4g}"}
    if found.top_activation is not None:
        row |= {
            "largest of the data": _number(found.top_activation[target, 0]),
            "percentile": _number(found.percentile[i]),
        }
    for name in ("path", "natural", "other"):
        if (correlation := getattr(found, name)) is not None:
            row[name] = _number(correlation[i, -1], 2)
    row["class"] = _class(int(found.answer[i]), labels)
    if found.second is not None and found.second_answer is not None:
        row["activation in the second model"] = _number(found.second[i])
        row["class of the second model"] = _class(int(found.second_answer[i]), second_labels)
    return row


def _named(target: str, labels: Sequence[str]) -> str:
    """A logit with the name of its class."""
    site, _, index = target.partition(":")
    named = site == "logits" and index.isdecimal() and int(index) < len(labels)
    return f"{target} ({labels[int(index)]})" if named else target


def _class(index: int, labels: Sequence[str]) -> str:
    return "" if index < 0 else labels[index] if index < len(labels) else str(index)


def _number(value: Any, digits: int = 4) -> str:
    return "" if value != value else f"{value:.{digits}g}"


def _cell(text: str) -> str:
    return shown(text, 200).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
