"""The folder of an edited model in the app: after and before, over the same images, compared."""

from pathlib import Path

import pytest
import torch
from prisma_app.answers import answer_of, model_view
from prisma_app.edited import edited_pair
from prisma_app.library import library_of
from prisma_app.state import State

import prisma
from prisma.data import task
from prisma.editing import edit_class, source_of, write_edited


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mouse = prisma.load("mice/digits")
    edit = edit_class(mouse.model, *task("digits").inputs("train", 300), 0, 8, method="class-row", names=mouse.labels)
    write_edited(tmp_path / "edited", mouse, edit)
    return tmp_path / "edited"


def test_the_app_shows_both_sides_of_an_edit_over_the_same_images(folder: Path) -> None:
    library = library_of(None, str(folder), ())
    assert library.names == ["edited", "edited, before the edit"]
    scenes = [library.scene(State(model=name)) for name in library.names]
    facts = [model_view(scene).facts for scene in scenes]
    assert facts[0]["examples"] == facts[1]["examples"] and facts[0]["steps"] == facts[1]["steps"]
    assert "Edited by class-row: 0 is to be called 8." in facts[0]["card"]
    mouse = prisma.load("mice/digits")
    zero = next(example["img"] for example in facts[0]["examples"] if example["label"] == 0)
    after, before = (library.scene(State(model=name, img=zero)) for name in library.names)
    assert torch.tensor(answer_of(after)["logits"]).argmax() == 8
    assert torch.tensor(answer_of(before)["logits"]).argmax() == 0
    assert source_of(before.loaded.model) == source_of(mouse.model)


def test_the_code_of_a_side_loads_that_side(folder: Path) -> None:
    for side in edited_pair(folder):
        names: dict[str, object] = {}
        exec(side.code(side.steps[-1]), names)
        assert source_of(names["loaded"].model) == source_of(side.final.model)  # type: ignore[attr-defined]
