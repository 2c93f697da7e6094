"""The page as a function of the session: what an event changes, and what it leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from prisma_app.tabs import patching
from prisma_app.models import Mouse
from prisma_app.page import TABS, Page, controls, from_link, lay_out, updates
from prisma_app.session import Session, opened
from prisma import PrismaError
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS

pytestmark = pytest.mark.usefixtures("closed_loops")


@pytest.fixture
def find(lab: Path) -> Callable[[Any], Mouse]:
    def find(name: Any) -> Mouse:
        if name not in (DIGITS, GLYPHS):
            raise PrismaError(f"there is no mouse {name}")
        return Mouse(Published(name, lab))

    return find


@pytest.fixture
def digits(find: Callable[[Any], Mouse]) -> Session:
    return opened(find(DIGITS))


@pytest.fixture
def page() -> Page:
    with gr.Blocks():
        return lay_out([DIGITS, GLYPHS], DIGITS)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    return said


def test_the_first_view_sets_everything(page: Page, digits: Session) -> None:
    first = updates(page, None, digits)
    known = {page.session, page.model, page.steps, page.images, page.others, page.tabs, *page.question}
    assert set(first) == known | {page.panels["attention"]}
    assert first[page.session] is digits


@pytest.mark.parametrize("tab", TABS)
def test_a_step_changes_the_panel_of_the_chosen_tab_alone(page: Page, digits: Session, tab: str) -> None:
    before = replace(digits, tab=tab)
    assert set(updates(page, before, replace(before, index=1))) == {page.session, page.panels[tab]}


def test_another_mouse_changes_everything_but_the_tab(page: Page, digits: Session, find: Any) -> None:
    after = opened(find(GLYPHS), digits.tab, digits.question)
    changed = updates(page, digits, after)
    assert page.tabs not in changed
    assert {page.model, page.steps, page.images, page.others, *page.question} <= set(changed)


def test_a_probability_has_no_second_class(page: Page, digits: Session) -> None:
    after = replace(digits, question=replace(digits.question, metric="probability"))
    assert updates(page, digits, after)[page.question[2]]["visible"] is False


def test_a_link_is_followed(find: Any, warned: list[str]) -> None:
    link = {"model": GLYPHS, "step": "4", "image": "3", "view": "lens"}
    session = from_link(find, [DIGITS], link)
    assert session.subject.published.repo == GLYPHS
    assert (session.subject.steps[session.index], session.picture.example, session.tab) == (4, 3, "lens")
    assert warned == []


@pytest.mark.parametrize(
    "wrong", [{"model": "x/<b>"}, {"step": "3"}, {"step": "-1"}, {"image": "99"}, {"image": "9" * 5000}]
)
def test_what_a_link_gets_wrong_is_said(find: Any, warned: list[str], wrong: dict[str, str]) -> None:
    session = from_link(find, [DIGITS], {"view": "patching", **wrong})
    assert (session.subject.published.repo, session.tab) == (DIGITS, "patching")
    assert len(warned) == 1
    assert "<" not in warned[0]


def test_an_unknown_view_is_the_first_one(find: Any, warned: list[str]) -> None:
    assert from_link(find, [DIGITS], {"view": "__class__"}).tab == "attention"


def test_a_mouse_that_cannot_be_read_is_passed_over(find: Any, warned: list[str]) -> None:
    def damaged(name: Any) -> Any:
        if name == DIGITS:
            raise PrismaError("expected a mouse, found a <wreck>")
        return find(name)

    assert from_link(damaged, [DIGITS, GLYPHS], {}).subject.published.repo == GLYPHS
    assert warned == ["expected a mouse, found a &lt;wreck&gt;"]
    with pytest.raises(PrismaError, match="that can be read, found none"):
        from_link(damaged, [DIGITS], {})


def test_after_a_change_that_failed_the_controls_show_the_session(page: Page, digits: Session) -> None:
    session = replace(digits, index=2)
    shown = controls(page, session)
    assert set(shown) == {page.model, page.steps, page.images, page.others, *page.question}
    assert json.loads(shown[page.steps]["facts"])["chosen"] == 2
    assert shown[page.model]["value"] == DIGITS


def test_the_pair_of_images_differs(digits: Session) -> None:
    example = digits.subject.example(1)
    session = digits.with_images(example, example)
    assert session.picture.example == 1
    assert session.corrupt.example != 1


def test_a_view_that_a_model_cannot_have_says_why_and_the_rest_is_shown(
    page: Page, digits: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "MOST", 1)
    after = replace(digits, tab="patching")
    changed = updates(page, None, after)
    assert json.loads(changed[page.panels["patching"]]["facts"])["refused"].startswith("Patching every head")
    assert changed[page.session] is after
    assert page.images in changed
