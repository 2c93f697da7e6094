"""How a session changes: another model, another image, an address."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest
from prisma_app.changes import from_link, with_model, with_picture
from prisma_app.models import Mouse
from prisma_app.session import Session
from prisma_app.tabs import TABS

from prisma import PrismaError
from tests.app.conftest import DIGITS, GLYPHS


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(gr, "Warning", sent.append)
    return sent


def test_a_mouse_opens_on_its_last_checkpoint_and_first_example(session: Session) -> None:
    fresh = with_model(session.subject)
    assert (fresh.index, fresh.picture.example, fresh.tab) == (len(session.subject.steps) - 1, 0, "attention")
    assert set(fresh.states) == set(TABS)


def test_another_image_is_shown_at_the_same_checkpoint(session: Session) -> None:
    after = with_picture(session, session.subject.example(3))
    assert (after.picture, after.index, after.tab) == (session.subject.example(3), 5, session.tab)
    assert after.states != session.states


def test_a_link_is_followed(find: Callable[[Any], Mouse], warned: list[str]) -> None:
    link = {"model": GLYPHS, "step": "4", "image": "3", "view": "lens"}
    session = from_link(find, [DIGITS], link)
    assert session.subject.name == GLYPHS
    assert (session.subject.steps[session.index], session.picture.example, session.tab) == (4, 3, "lens")
    assert warned == []


@pytest.mark.parametrize(
    "wrong", [{"model": "x/<b>"}, {"step": "3"}, {"step": "-1"}, {"image": "99"}, {"image": "9" * 5000}]
)
def test_a_mistake_in_a_link_is_a_warning(
    find: Callable[[Any], Mouse], warned: list[str], wrong: dict[str, str]
) -> None:
    session = from_link(find, [DIGITS], {"view": "patching", **wrong})
    assert (session.subject.name, session.tab) == (DIGITS, "patching")
    assert len(warned) == 1
    assert "<" not in warned[0]


def test_an_unknown_view_is_the_first_one(find: Callable[[Any], Mouse], warned: list[str]) -> None:
    assert from_link(find, [DIGITS], {"view": "__class__"}).tab == "attention"


def test_a_mouse_that_cannot_be_read_is_skipped(find: Callable[[Any], Mouse], warned: list[str]) -> None:
    def damaged(name: Any) -> Mouse:
        if name == DIGITS:
            raise PrismaError("expected a mouse; found a <wreck>")
        return find(name)

    assert from_link(damaged, [DIGITS, GLYPHS], {}).subject.name == GLYPHS
    assert warned == ["expected a mouse; found a &lt;wreck&gt;"]
    with pytest.raises(PrismaError, match="that can be read; found none"):
        from_link(damaged, [DIGITS], {})
