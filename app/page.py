"""The page: its components, and what each event makes of a session."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import gradio as gr
import torch

from app import attention, lens, patching
from app.panel import answer, panel, payload, refusal
from app.question import DIRECTIONS, METRICS, asked, sites
from app.session import Session, opened
from app.subject import Picture, Subject
from app.theme import HEADER
from prisma.errors import PrismaError
from prisma.view.browser import View

TABS = {"attention": attention, "lens": lens, "patching": patching}
Updates = dict[Any, Any]


@dataclass(frozen=True)
class Page:
    """The components."""

    session: Any
    model: Any
    steps: gr.HTML
    images: gr.HTML
    upload: Any
    others: gr.HTML  # picks the corrupt image
    question: Sequence[Any]  # metric, target, against, site, into
    tabs: Any
    tab: dict[str, Any]
    panels: dict[str, gr.HTML]


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
    tab, panels = {}, {}
    with gr.Tabs() as tabs:
        for name, module in TABS.items():
            with gr.Tab(module.TITLE, id=name) as tab[name]:
                gr.Markdown(module.HELP, elem_classes="pz-help")
                if module is patching:
                    others, question = _lay_out_question()
                panels[name] = panel(module.VIEWER, name)
    return Page(session, model, steps, images, upload, others, question, tabs, tab, panels)


def _lay_out_question() -> tuple[gr.HTML, list[Any]]:
    with gr.Row(equal_height=False, elem_id="pz-question"):
        with gr.Column(scale=2, min_width=300):
            others = panel("images", "others")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                into = gr.Dropdown(list(DIRECTIONS.items()), label="Direction", min_width=240)
                metric = gr.Dropdown(list(METRICS), label="Metric", min_width=160)
            with gr.Row():
                target = gr.Dropdown([], label="Class", min_width=90)
                against = gr.Dropdown([], label="minus class", min_width=90)
                site = gr.Dropdown([], label="Tokens of", min_width=140)
    return others, [metric, target, against, site, into]


def wire(blocks: gr.Blocks, page: Page, find: Callable[[Any], Subject], known: Sequence[str]) -> None:
    """Every event makes a new session from the old one, and the page shows it; `known` begins with the default."""

    def start(before: Session | None, request: gr.Request) -> Session:
        return from_link(find, known, dict(request.query_params))

    def choose_model(before: Session | None, name: Any) -> Session:
        return opened(find(name), before.tab, before.question) if before else opened(find(name))

    def choose_step(before: Session, value: Any) -> Session:
        index = answer(value, "index")
        before.subject.at(index)
        return replace(before, index=index)

    def choose_image(before: Session, value: Any) -> Session:
        return before.with_images(before.subject.example(answer(value, "index")), before.corrupt)

    def choose_other(before: Session, value: Any) -> Session:
        corrupt = before.subject.example(answer(value, "index"))
        if corrupt.example == before.picture.example:
            raise PrismaError("expected a corrupt image other than the clean one, found the same")
        return before.with_images(before.picture, corrupt)

    def draw(before: Session, value: Any) -> Session:
        return before.with_images(before.subject.drawing(answer(value, "ink")), before.corrupt)

    def upload(before: Session, path: Any) -> Session:
        return before.with_images(before.subject.upload(path), before.corrupt)

    def ask(before: Session, *values: Any) -> Session:
        return replace(before, question=asked(before.subject, *values))

    on = _listener(page)
    on(blocks.load, start)
    on(page.model.input, choose_model, page.model)
    on(page.steps.choose, choose_step, page.steps)
    on(page.images.choose, choose_image, page.images)
    on(page.images.draw, draw, page.images)
    on(page.others.choose, choose_other, page.others)
    on(page.upload.upload, upload, page.upload)
    for control in page.question:
        on(control.input, ask, *page.question)
    for name, tab in page.tab.items():
        on(tab.select, _select(name))


def _select(name: str) -> Callable[[Session], Session]:
    def select(before: Session) -> Session:
        return replace(before, tab=name)

    return select


def _listener(page: Page) -> Callable[..., None]:
    """`on(event, change, *inputs)`. One change at a time, so that none is made from a session that is out of date."""
    outputs = [page.session, page.model, page.steps, page.images, page.others, *page.question, page.tabs]
    outputs += page.panels.values()

    def on(listen: Callable[..., Any], change: Callable[..., Session], *inputs: Any) -> None:
        @wraps(change)
        def event(before: Session | None, *values: Any) -> Updates:
            if before is None and change.__name__ == "select":
                return {page.session: None}  # tabs report themselves before the page has loaded
            if before is None and change.__name__ not in ("start", "choose_model"):
                raise gr.Error("this page has expired: reload it", print_exception=False)
            try:
                with torch.no_grad():
                    return updates(page, before, change(before, *values))
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
    """Every control as the session has it: after a change that failed, they show what the page shows."""
    if session is None:
        return {page.session: None}
    return {
        page.model: gr.update(value=session.subject.name),
        page.steps: payload(View({"steps": session.subject.steps, "chosen": session.index})),
        page.images: payload(_images(session.subject, session.picture, "Image")),
        page.others: payload(_images(session.subject, session.corrupt, "Corrupt image")),
        **_question(page, session),
    }


def from_link(find: Callable[[Any], Subject], known: Sequence[str], link: dict[str, str]) -> Session:
    """The session that an address asks for: `?model=OWNER/NAME&step=128&image=3&view=lens`.

    What the address gets wrong is said, and the usual first view is shown; a model that cannot be read is passed over.

    Raises:
        PrismaError: no model can be read.
    """
    session = _first_readable(find, [link["model"], *known] if "model" in link else known)
    try:
        if "step" in link:
            session = replace(session, index=session.subject.index_of(link["step"]))
        if "image" in link:
            index = int(link["image"]) if re.fullmatch(r"\d{1,4}", link["image"]) else link["image"]
            session = session.with_images(session.subject.example(index), session.corrupt)
    except PrismaError as error:
        gr.Warning(html.escape(str(error), quote=False))
    return replace(session, tab=link["view"]) if link.get("view") in TABS else session


def _first_readable(find: Callable[[Any], Subject], names: Sequence[str]) -> Session:
    for name in names:
        try:
            return opened(find(name))
        except PrismaError as error:
            gr.Warning(html.escape(str(error), quote=False))
    raise PrismaError("expected a model that can be read, found none")


def updates(page: Page, before: Session | None, after: Session) -> Updates:
    """What of the page differs between two sessions. Panels of other tabs wait until their tab is chosen."""
    changed: Updates = {page.session: after, page.panels[after.tab]: _shown(after)}
    subject = after.subject
    if before is None:
        changed[page.tabs] = gr.update(selected=after.tab)
    if before is None or before.subject != subject:
        before = None  # nothing of another model holds
        changed[page.model] = gr.update(value=subject.name)
        changed[page.steps] = payload(View({"steps": subject.steps, "chosen": after.index}))
    if before is None or before.picture is not after.picture:
        changed[page.images] = payload(_images(subject, after.picture, "Image"))
    if before is None or before.corrupt is not after.corrupt:
        changed[page.others] = payload(_images(subject, after.corrupt, "Corrupt image"))
    if before is None or before.question != after.question:
        changed |= _question(page, after)
    return changed


def _shown(session: Session) -> dict[str, Any]:
    """The panel of the chosen tab. A view that a model cannot have is no reason not to show the rest."""
    try:
        return payload(TABS[session.tab].view(session))
    except PrismaError as error:
        return refusal(error)


def _images(subject: Subject, chosen: Picture, title: str) -> View:
    names = [example.caption for example in subject.examples()]
    facts = {"title": title, "names": names, "chosen": chosen.example, "caption": chosen.caption}
    return View({**facts, "drawable": title == "Image"}, {"images": subject.thumbnails()})


def _question(page: Page, session: Session) -> Updates:
    question = session.question
    classes = [(label, i) for i, label in enumerate(session.labels)]
    metric, target, against, site, into = page.question
    return {
        metric: gr.update(value=question.metric),
        target: gr.update(choices=classes, value=question.target),
        against: gr.update(choices=classes, value=question.against, visible=question.metric == METRICS[0]),
        site: gr.update(choices=sites(session.subject), value=question.site),
        into: gr.update(value=question.into),
    }
