"""A mouse whose mechanism is known because it was written by hand, and its task.

Which glyph stands after glyph 0? Head 0.1 attends to the previous patch, head 1.2 finds its key by what head 0.1 wrote
there, and copies the glyph; head 0.2 attends to its own token and writes nothing.
"""

from dataclasses import replace
from functools import cache
from itertools import product

import torch
from torch import Tensor

from prisma.data.task import Split, Task
from prisma.data.transform import Transform
from prisma.mechanisms.given import Given
from prisma.mechanisms.subject import Subject
from prisma.train.objectives import CLASSIFICATION
from prisma.vit import ViT
from tests.planted_circuits import GLYPHS, PATCHES, PLACE, SHARP, attention_of, induction
from tests.variants import default_dtype

BEFORE, READS, USELESS = "0.1", "1.2", "0.2"


def mouse() -> ViT:
    planted = induction(before=1, after=2)
    grey = replace(planted.config, image_size=(2, 2 * PATCHES), patch_size=2, channels=1)
    with default_dtype(torch.float64):
        model = ViT(grey).eval()
    model.load_state_dict(planted.state_dict())
    _, sides = attention_of(model, 0)
    places = torch.eye(PATCHES + 1, dtype=torch.float64)
    sides[0, 2, : PATCHES + 1, PLACE] = places * SHARP * 8**0.5
    sides[1, 2, : PATCHES + 1, PLACE] = places
    return model


def pictures(rows: list[list[int]]) -> Tensor:
    """[image, 1, 2, column]: the glyph of a patch of two by two pixels is which of them is white."""
    glyphs = torch.eye(GLYPHS)[torch.tensor(rows)].unflatten(-1, (2, 2))  # [image, patch, row, column]
    return glyphs.permute(0, 2, 1, 3).flatten(2)[:, None]


@cache
def task() -> Task:
    """All rows of five glyphs with one glyph 0, not the last: half to train on, half to test."""
    rows = [list(row) for row in product(range(GLYPHS), repeat=PATCHES) if row.count(0) == 1 and row[-1] != 0]
    rows = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()]
    labels = torch.tensor([row[row.index(0) + 1] for row in rows])
    pixels, half = pictures(rows), len(rows) // 2
    parts = [Split(pixels[some], labels[some]) for some in (slice(half), slice(half, None))]
    return Task.of_splits(
        "planted",
        *parts,
        labels=tuple("0123"),
        transform=Transform(size=(2, 2 * PATCHES), mean=(0.0,), std=(1.0,)),
        summary="Which glyph stands after glyph 0?",
        source="written by hand",
    )


def subject(**checkpoints: object) -> Subject:
    model = mouse()
    return Subject("planted", model, task().transform, task(), CLASSIFICATION, "0" * 64, **checkpoints)  # type: ignore[arg-type]


def given(limit: int = 96, pairs: int = 24, **fields: object) -> Given:
    return Given(mouse(), task(), CLASSIFICATION, task().transform, limit, pairs, **fields)  # type: ignore[arg-type]
