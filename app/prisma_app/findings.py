"""What was found with the mice in the package, each as a state of the page and the sentences that say what to look at.

Every number here is computed again by a test.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.data.induction import draw
from prisma_app.state import State

OWNERS = ("mice", "prisma")  # whose mice of these names have the package's weights


def inked(image: Tensor) -> str:
    """A picture [side, side] of 0 and 1 as an address names a drawing."""
    levels = (image.flatten() * 15).round().to(torch.uint8)
    levels = torch.cat([levels, levels.new_zeros(len(levels) % 2)]).view(-1, 2)
    packed = (levels[:, 0] * 16 + levels[:, 1]).numpy().tobytes()
    return f"ink:{len(image)}:{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


@dataclass(frozen=True)
class Finding:
    """One finding, about the mouse of a recipe."""

    title: str
    text: str
    recipe: str
    keys: dict[str, Any]  # of the state that shows it


FINDINGS = (
    Finding(
        "Heads that look at the object",
        "The sprites mouse names the shape and the hue of an object before a coloured background. Head 2 of layer "
        "1 gives 65 % of its attention to the patches of the object; a head that looks everywhere alike gives 12 "
        "%. Move over the map: most patches attend to the object, wherever they are. This says where the head "
        "reads, not what for.",
        "sprites",
        {"view": "attention", "img": "0", "layer": 1, "head": 2, "token": 0},
    ),
    Finding(
        "Hue can be read before shape",
        "Read out after each layer, the sprites mouse has the right hue in 86 % of 200 test images after layer 3, "
        "and the right shape in 52 %. After layer 4 it is 96 % and 76 %. The curves show one image; the rows of "
        "the table are layers. The last row is the model's answer.",
        "sprites",
        {"view": "lens", "img": "0", "token": 0},
    ),
    Finding(
        "Two heads compare",
        "The induction mouse says whether two glyphs are the same. When one glyph is exchanged for another, heads "
        "1 and 7 carry about half of the difference each (48 % and 41 % over 576 pairs), every other head less "
        "than a fifth. The map shows one pair: colours say how much of the gap between the two runs one head "
        "carries.",
        "induction",
        {
            "view": "patching",
            "img": inked(draw(3, 3, 22, 10)),
            "corrupt": inked(draw(3, 2, 22, 10)),
            "target": 2,
            "against": 3,
            "layer": 0,
            "head": 1,
        },
    ),
)


def findings_about(names: Sequence[str]) -> list[dict[str, Any]]:
    """The findings about the models of these names: `{"title", "text", "state"}`."""
    found = []
    for finding in FINDINGS:
        model = next((name for owner in OWNERS for name in names if name == f"{owner}/{finding.recipe}"), None)
        if model is not None:
            state = State.of({"model": model, **finding.keys})
            found.append({"title": finding.title, "text": finding.text, "state": state.model_dump(exclude_unset=True)})
    return found
