"""How a visitor's session changes: another model, another image, or the session that an address asks for."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from prisma.errors import PrismaError
from prisma_app.session import Session
from prisma_app.subject import Picture, Subject
from prisma_app.tabs import TABS

FIRST_TAB = next(iter(TABS))


def with_model(subject: Subject, before: Session | None = None) -> Session:
    """A session on a model's first example and last checkpoint; tabs keep what they can from `before`.

    Raises:
        PrismaError: the model has no checkpoint or example, or they cannot be read.
    """
    picture = subject.example(0)
    tab = before.tab if before else FIRST_TAB
    return Session(subject, len(subject.steps) - 1, picture, tab, _states(subject, picture, before))


def with_picture(before: Session, picture: Picture) -> Session:
    """The same session on another image."""
    return replace(before, picture=picture, states=_states(before.subject, picture, before))


def from_link(find: Callable[[Any], Subject], known: Sequence[str], link: Mapping[str, str]) -> Session:
    """The session that an address asks for: `?model=OWNER/NAME&step=128&image=3&view=lens`.

    A mistake in the address is shown as a warning above the usual first view; a model that cannot be read is skipped.

    Raises:
        PrismaError: no model can be read.
    """
    session = _first_readable(find, [link["model"], *known] if "model" in link else known)
    try:
        if "step" in link:
            session = replace(session, index=session.subject.index_of(link["step"]))
        if "image" in link:
            index = int(link["image"]) if re.fullmatch(r"\d{1,4}", link["image"]) else link["image"]
            session = with_picture(session, session.subject.example(index))
    except PrismaError as error:
        gr.Warning(html.escape(str(error), quote=False))
    return replace(session, tab=link["view"]) if link.get("view") in TABS else session


def _states(subject: Subject, picture: Picture, before: Session | None) -> dict[str, Any]:
    return {name: tab.state(subject, picture, before) for name, tab in TABS.items()}


def _first_readable(find: Callable[[Any], Subject], names: Sequence[str]) -> Session:
    for name in names:
        try:
            return with_model(find(name))
        except PrismaError as error:
            gr.Warning(html.escape(str(error), quote=False))
    raise PrismaError("expected a model that can be read; found none")
