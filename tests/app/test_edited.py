"""The folder of an edited model in the app: after and before, over the same images, compared."""

import json
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser
from prisma_app.answers import answer_of, model_view
from prisma_app.edited import edited_pair
from prisma_app.library import library_of
from prisma_app.state import State

import prisma
from prisma.data import task
from prisma.editing import Share, edit_class, source_of, write_edited
from tests.app.visitor import served, visit


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
    assert [x["beside"] for x in facts] == ["edited, before the edit", "edited"]
    assert [example["label"] for example in facts[0]["examples"][:4]] == [0] * 4 and len(facts[0]["examples"]) == 20
    mouse = prisma.load("mice/digits")
    zero = next(example["img"] for example in facts[0]["examples"] if example["label"] == 0)
    after, before = (library.scene(State(model=name, img=zero)) for name in library.names)
    assert torch.tensor(answer_of(after)["logits"]).argmax() == 8
    assert torch.tensor(answer_of(before)["logits"]).argmax() == 0
    assert source_of(before.loaded.model) == source_of(mouse.model)


def test_what_is_said_of_an_edit_has_the_intervals_of_its_measures(folder: Path) -> None:
    share = Share(39, 40)
    known = {"value": share.value, "interval": list(share.interval), "n": share.n}
    rows = {"success": known, "near_gap": 0.1, "locality": {"value": 0.5}}
    (folder / "measures.json").write_text(json.dumps(rows))
    card = str(edited_pair(folder)[0].about()["card"])
    low, high = share.interval
    assert f"success 0.975 ({low:.3f} to {high:.3f}), 40 images\nlocality 0.500" in card and "near" not in card


def test_examples_of_the_edited_class_come_with_their_code(folder: Path) -> None:
    side = edited_pair(folder)[0]
    for picture in side.examples()[:5]:
        made = eval(side.code_of(picture), {"task": task})
        assert torch.equal(made[0], picture.x)


def test_the_code_of_a_side_loads_that_side(folder: Path) -> None:
    for side in edited_pair(folder):
        names: dict[str, object] = {}
        exec(side.code(side.steps[-1]), names)
        assert source_of(names["loaded"].model) == source_of(side.final.model)  # type: ignore[attr-defined]


def test_a_comparison_begins_with_the_model_before_the_edit(folder: Path, browser: Browser) -> None:
    with served(None, folder) as url, visit(browser, url) as app:
        app.open().ready("s.model === 'edited'")
        answers = app.tab.locator(".pz-answers")
        assert answers.first.inner_text().startswith("8")
        app.tab.get_by_role("button", name="Compare").click()
        state = app.ready("s.model2 === 'edited, before the edit'")
        assert state["img"] == "0" and "img2" not in state
        assert answers.nth(1).inner_text().startswith("0")
        app.tab.get_by_role("button", name="Compare").click()
        app.ready("s.model2 === undefined")
