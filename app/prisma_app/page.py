"""The page: its components, and what each event changes. What is in a tab is the tab's own affair (`tab.Tab`)."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import gradio as gr
import torch

from prisma.errors import PrismaError
from prisma.view.browser import View
from prisma_app.changes import from_link, with_model, with_picture
from prisma_app.panel import answer, panel, payload, refusal
from prisma_app.picker import picker
from prisma_app.session import Session
from prisma_app.subject import Subject
from prisma_app.tab import Controls, Event, Updates
from prisma_app.tabs import TABS
from prisma_app.theme import HEADER


@dataclass(frozen=True)
class Page:
    """The components."""

    session: Any
    model: Any
    steps: gr.HTML
    images: gr.HTML
    upload: Any
    tabs: Any
    tab: dict[str, Any]
    controls: dict[str, Controls]  # of each tab
    panels: dict[str, gr.HTML]  # the view of each tab


def lay_out(known: Sequence[str], first: str) -> Page:
    """Make the components, inside a `gr.Blocks`."""
    session = gr.State(None)
    gr.HTML(HEADER, apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            model = gr.Dropdown(list(known), value=first, label="Model", elem_id="pz-model")
            steps = panel("steps", "steps")
        with gr.Column(scale=3, min_width=300):
            images = panel("images", "images")
            upload = gr.UploadButton("Upload an image", file_types=["image"], size="sm", elem_id="pz-upload")
    tab, controls, panels = {}, {}, {}
    with gr.Tabs() as tabs:
        for name, content in TABS.items():
            with gr.Tab(content.TITLE, id=name) as tab[name]:
                gr.Markdown(content.HELP, elem_classes="pz-help")
                controls[name] = content.lay_out()
                panels[name] = panel(content.VIEWER, name)
    return Page(session, model, steps, images, upload, tabs, tab, controls, panels)


def wire(blocks: gr.Blocks, page: Page, find: Callable[[Any], Subject], known: Sequence[str]) -> None:
    """Every event makes a new session from the old one, and the page shows it; `known` begins with the default."""

    def start(before: Session | None, request: gr.Request) -> Session:
        return from_link(find, known, dict(request.query_params))

    def choose_model(before: Session | None, name: Any) -> Session:
        return with_model(find(name), before)

    def choose_step(before: Session, value: Any) -> Session:
        index = answer(value, "index")
        before.subject.at(index)
        return replace(before, index=index)

    def choose_image(before: Session, value: Any) -> Session:
        return with_picture(before, before.subject.example(answer(value, "index")))

    def draw(before: Session, value: Any) -> Session:
        return with_picture(before, before.subject.drawing(answer(value, "ink")))

    def upload(before: Session, path: Any) -> Session:
        return with_picture(before, before.subject.upload(path))

    on = _listener(page)
    on(blocks.load, start, needs_session=False)
    on(page.model.input, choose_model, page.model, needs_session=False)
    on(page.steps.choose, choose_step, page.steps)
    on(page.images.choose, choose_image, page.images)
    on(page.images.draw, draw, page.images)
    on(page.upload.upload, upload, page.upload)
    for name, tab in TABS.items():
        on(page.tab[name].select, _select(name), needs_session=False)
        for event in tab.events(page.controls[name]):
            on(event.listen, _change_state(name, event), *event.inputs)


def _select(name: str) -> Callable[[Session | None], Session | None]:
    def select(before: Session | None) -> Session | None:
        # The first tab sends this event before the page has loaded, when there is no session.
        return replace(before, tab=name) if before else None

    return select


def _change_state(name: str, event: Event) -> Callable[..., Session]:
    def change(before: Session, *values: Any) -> Session:
        return before.with_state(name, event.change(before, *values))

    return change


def _listener(page: Page) -> Callable[..., None]:
    """`on(event, change, *inputs)`. Changes run one at a time, so that each starts from the session before it."""
    outputs = [page.session, page.model, page.steps, page.images, page.tabs, *page.panels.values()]
    outputs += [control for controls in page.controls.values() for control in controls.values()]

    def on(
        listen: Callable[..., Any], change: Callable[..., Session | None], *inputs: Any, needs_session: bool = True
    ) -> None:
        @wraps(change)
        def event(before: Session | None, *values: Any) -> Updates:
            if before is None and needs_session:
                raise gr.Error("this page has expired: reload it", print_exception=False)
            try:
                with torch.no_grad():
                    after = change(before, *values)
                    return updates(page, before, after) if after else {page.session: None}
            except PrismaError as error:
                raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None

        how: dict[str, Any] = {
            "show_progress": "hidden",
            "concurrency_id": "session",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        done = listen(event, [page.session, *inputs], outputs, trigger_mode="always_last", **how)
        done.failure(lambda before: controls(page, before), page.session, outputs, **how)

    return on


def controls(page: Page, session: Session | None) -> Updates:
    """Every control as the session has it: after a change that failed, the controls must not show that change."""
    return _controls(page, None, session) if session else {page.session: None}


def updates(page: Page, before: Session | None, after: Session) -> Updates:
    """What differs on the page between two sessions. The view of another tab is made when that tab is chosen."""
    changed: Updates = {page.session: after, page.panels[after.tab]: _view(after)}
    if before is None:
        changed[page.tabs] = gr.update(selected=after.tab)
    same_model = before is not None and before.subject == after.subject
    return changed | _controls(page, before if same_model else None, after)


def _controls(page: Page, before: Session | None, after: Session) -> Updates:
    """The controls that differ; all of them without `before`."""
    changed: Updates = {}
    if before is None:
        changed[page.model] = gr.update(value=after.subject.name)
        changed[page.steps] = payload(View({"steps": after.subject.steps, "chosen": after.index}))
    if before is None or before.picture is not after.picture:
        changed[page.images] = payload(picker(after.subject, after.picture, "Image", drawable=True))
    for name, tab in TABS.items():
        changed |= tab.updates(page.controls[name], before, after)
    return changed


def _view(session: Session) -> dict[str, Any]:
    """The view of the chosen tab, or the reason why it cannot show this model: other tabs still can."""
    try:
        return payload(TABS[session.tab].view(session))
    except PrismaError as error:
        return refusal(error)
