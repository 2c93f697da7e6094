"""The page as a function of the session: what an event changes, and what stays."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest
from prisma_app import changes, page
from prisma_app.changes import with_model, with_picture
from prisma_app.models import Mouse
from prisma_app.page import Page, controls, lay_out, updates, wire
from prisma_app.session import Session
from prisma_app.subject import Picture, Subject
from prisma_app.tab import Controls, Event, Tab, Updates
from prisma_app.tabs import TABS, patching

from prisma.view.browser import View
from tests.app.conftest import DIGITS, GLYPHS

pytestmark = pytest.mark.usefixtures("closed_loops")


@pytest.fixture
def digits(find: Callable[[Any], Mouse]) -> Session:
    return with_model(find(DIGITS))


@pytest.fixture
def laid() -> Page:
    with gr.Blocks():
        return lay_out([DIGITS, GLYPHS], DIGITS)


def every_control(laid: Page) -> set[Any]:
    own = {control for made in laid.controls.values() for control in made.values()}
    return {laid.model, laid.steps, laid.images} | own


def test_the_first_view_sets_everything(laid: Page, digits: Session) -> None:
    first = updates(laid, None, digits)
    assert set(first) == every_control(laid) | {laid.session, laid.tabs, laid.panels["attention"]}
    assert first[laid.session] is digits


@pytest.mark.parametrize("tab", TABS)
def test_a_step_changes_the_view_of_the_chosen_tab_alone(laid: Page, digits: Session, tab: str) -> None:
    before = replace(digits, tab=tab)
    assert set(updates(laid, before, replace(before, index=1))) == {laid.session, laid.panels[tab]}


def test_another_mouse_changes_everything_but_the_tab(laid: Page, digits: Session, find: Any) -> None:
    changed = updates(laid, digits, with_model(find(GLYPHS), digits))
    assert set(changed) == every_control(laid) | {laid.session, laid.panels["attention"]}


def test_another_image_changes_the_chosen_image(laid: Page, digits: Session) -> None:
    changed = updates(laid, digits, with_picture(digits, digits.subject.example(2)))
    assert laid.images in changed
    assert {laid.model, laid.steps, laid.tabs}.isdisjoint(changed)
    facts = json.loads(changed[laid.images]["facts"])
    assert (facts["chosen"], facts["drawable"]) == (2, True)


def test_after_a_change_that_failed_the_controls_show_the_session(laid: Page, digits: Session) -> None:
    shown = controls(laid, replace(digits, index=2))
    assert set(shown) == every_control(laid)
    assert json.loads(shown[laid.steps]["facts"])["chosen"] == 2
    assert shown[laid.model]["value"] == DIGITS
    assert controls(laid, None) == {laid.session: None}


def test_a_view_that_cannot_show_a_model_says_why_and_the_rest_is_shown(
    laid: Page, digits: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "MAX_COST", 1)
    after = replace(digits, tab="patching")
    changed = updates(laid, None, after)
    assert json.loads(changed[laid.panels["patching"]]["facts"])["refused"].startswith("Patching every head")
    assert changed[laid.session] is after
    assert laid.images in changed


class Counter(Tab):
    """A tab that the page has never seen: it counts clicks for each image."""

    TITLE, HELP, VIEWER = "Counter", "Clicks.", "steps"

    def view(self, session: Session) -> View:
        return View({"steps": [session.states["counter"]], "chosen": 0})

    def state(self, subject: Subject, picture: Picture, before: Session | None) -> int:
        return 0

    def lay_out(self) -> Controls:
        return {"button": gr.Button("Count")}

    def events(self, controls: Controls) -> list[Event]:
        return [Event(controls["button"].click, lambda session: session.states["counter"] + 1, [])]

    def updates(self, controls: Controls, before: Session | None, after: Session) -> Updates:
        return {controls["button"]: gr.update(value=f"Count {after.states['counter']}")}


def test_the_page_takes_any_tab(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tabs = {**TABS, "counter": Counter()}
    monkeypatch.setattr(page, "TABS", tabs)
    monkeypatch.setattr(changes, "TABS", tabs)
    with gr.Blocks() as blocks:
        laid = lay_out([DIGITS], DIGITS)
        wire(blocks, laid, find, [DIGITS])
    button = laid.controls["counter"]["button"]
    session = replace(with_model(find(DIGITS)), tab="counter")
    (click,) = [f for f in blocks.fns.values() if (button._id, "click") in f.targets]
    assert click.fn is not None
    changed = click.fn(click.fn(session)[laid.session])
    assert changed[button]["value"] == "Count 2"
    assert json.loads(changed[laid.panels["counter"]]["facts"])["steps"] == [2]


def test_an_event_without_a_session(find: Any) -> None:
    with gr.Blocks() as blocks:
        laid = lay_out([DIGITS], DIGITS)
        wire(blocks, laid, find, [DIGITS])
    events = {f.targets[0]: f.fn for f in blocks.fns.values() if f.targets}
    select, step = events[laid.tab["lens"]._id, "select"], events[laid.steps._id, "choose"]
    assert select is not None
    assert step is not None
    assert select(None) == {laid.session: None}  # a tab may report itself before the page has loaded
    with pytest.raises(gr.Error, match="this page has expired"):
        step(None, {"index": 0})
