"""The Patching tab: which heads and tokens carry the difference between two images. Exact, one run per cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import torch

from prisma.analysis.patching.activation_patching import sweep
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma.inventory import site_names
from prisma.metrics import LogitDiff, Metric, Probability
from prisma.view.browser import View, numbers
from prisma_app.panel import answer, panel, payload
from prisma_app.picker import picker
from prisma_app.session import Session
from prisma_app.subject import Picture, Subject
from prisma_app.tab import Controls, Event, Tab, Updates

NAME = __name__.rpartition(".")[2]  # as the table of tabs has it
METRICS: Mapping[str, str] = {"logit_diff": "logit difference", "probability": "probability"}
"""Name in `prisma.metrics.NAMED` -> label on the page."""
DIRECTIONS = {"denoising: clean into corrupt": "corrupt", "noising: corrupt into clean": "clean"}
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
MIN_REACH = 1e-3  # smaller differences than the page prints are rounding errors, and get no colour
MAX_COST = 2e12  # multiply-adds for one view: tens of seconds on a few CPU cores


@dataclass(frozen=True)
class Question:
    """The state of the tab: the other image of the pair, which run is patched at which site, and what is measured."""

    corrupt: Picture
    metric: str  # one of METRICS
    target: int  # class
    against: int  # class; only the logit difference uses it
    site: str  # site of the token map
    into: str  # the run that is patched: "clean" or "corrupt"


class Patching(Tab):
    """The effect of every head and token on a metric."""

    TITLE = "Patching"
    HELP = (
        "Each cell is one run in which a single head or token holds what it computed for the other image: a cause, "
        "for this pair of images and this metric."
    )
    VIEWER = "effects"

    def state(self, subject: Subject, picture: Picture, before: Session | None) -> Question:
        """The metric, site and direction stay; the classes are those that the model answers for the new pair."""
        if before is None:
            return default_question(subject, picture, subject.other_example(picture))
        old = _question(before)
        kept = before.subject == subject and old.corrupt.example != picture.example
        return default_question(subject, picture, old.corrupt if kept else subject.other_example(picture), old)

    def lay_out(self) -> Controls:
        """The choice of the corrupt image, and of what is measured."""
        with gr.Row(equal_height=False, elem_id="pz-question"):
            with gr.Column(scale=2, min_width=300):
                corrupt = panel("images", "others")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    into = gr.Dropdown(list(DIRECTIONS.items()), label="Direction", min_width=240)
                    metrics = [(label, name) for name, label in METRICS.items()]
                    metric = gr.Dropdown(metrics, label="Metric", min_width=160)
                with gr.Row():
                    target = gr.Dropdown([], label="Class", min_width=90)
                    against = gr.Dropdown([], label="minus class", min_width=90)
                    site = gr.Dropdown([], label="Tokens of", min_width=140)
        chosen = {"metric": metric, "target": target, "against": against, "site": site, "into": into}
        return {"corrupt": corrupt, **chosen}

    def events(self, controls: Controls) -> Sequence[Event]:
        """Choose the corrupt image; change any of the other controls."""
        corrupt, *chosen = controls.values()
        return [Event(corrupt.choose, _choose_corrupt, [corrupt])] + [
            Event(control.input, asked, chosen) for control in chosen
        ]

    def updates(self, controls: Controls, before: Session | None, after: Session) -> Updates:
        """The corrupt image, and the other controls with the classes and sites of this model."""
        question, changed = _question(after), Updates()
        old = _question(before) if before else None
        if old is None or old.corrupt is not question.corrupt:
            changed[controls["corrupt"]] = payload(picker(after.subject, question.corrupt, "Corrupt image"))
        if old is None or replace(old, corrupt=question.corrupt) != question:
            classes = [(label, i) for i, label in enumerate(after.labels)]
            two = question.metric == "logit_diff"
            changed |= {
                controls["metric"]: gr.update(value=question.metric),
                controls["target"]: gr.update(choices=classes, value=question.target),
                controls["against"]: gr.update(choices=classes, value=question.against, visible=two),
                controls["site"]: gr.update(choices=sites(after.subject), value=question.site),
                controls["into"]: gr.update(value=question.into),
            }
        return changed

    def view(self, session: Session) -> View:
        """Effects [layer, head] of `attn.z` and [layer, token] of the chosen site, and the metric of both runs.

        Raises:
            PrismaError: the model cannot take the images, has diverged, or is too large to patch while a visitor waits.
        """
        _expect_quick(session.loaded.config)
        question, model = _question(session), session.loaded.model
        metric, name = metric_of(question, session.labels)
        clean, corrupt = session.picture.x[None], question.corrupt.x[None]
        heads = sweep(model, clean, corrupt, "attn.z", metric, into=question.into)
        tokens = sweep(model, clean, corrupt, question.site, metric, into=question.into, axis="token")
        runs = {"clean": metric(model(clean)).item(), "corrupt": metric(model(corrupt)).item()}
        base = runs[question.into]  # the middle of the colours
        found = (*runs.values(), *heads.flatten().tolist(), *tokens.flatten().tolist())
        reach = max(MIN_REACH, *(abs(x - base) for x in found))
        scale = {"low": base - reach, "high": base + reach}
        facts = {**session.facts(), **runs, **scale, "metric": name, "site": question.site, "into": question.into}
        images = {"clean": session.image(session.picture), "corrupt": session.image(question.corrupt)}
        return View(facts, {**images, "heads": numbers(heads), "tokens": numbers(tokens)})


TAB = Patching()


def sites(subject: Subject) -> list[str]:
    """The sites of the token map that this model has."""
    known = site_names(subject.final.config)
    return [site for site in SITES if f"blocks.0.{site}" in known]


def default_question(subject: Subject, picture: Picture, corrupt: Picture, before: Question | None = None) -> Question:
    """Measure the classes that the final weights answer for the two images; keep everything else from `before`.

    The classes do not depend on the checkpoint, so that every training step is asked the same question.
    """
    clean, other = subject.final.model(torch.stack([picture.x, corrupt.x]))
    target = int(clean.argmax())
    order: list[int] = other.argsort(descending=True).tolist()
    against = next((c for c in order if c != target), target)
    if before is None:
        return Question(corrupt, "logit_diff", target, against, SITES[0], "corrupt")
    site = before.site if before.site in sites(subject) else SITES[0]
    return Question(corrupt, before.metric, target, against, site, before.into)


def asked(session: Session, metric: Any, target: Any, against: Any, site: Any, into: Any) -> Question:
    """The question that the page's controls ask. Anyone may send these values, so every one is checked.

    Raises:
        PrismaError: a value that the page does not offer.
    """
    classes = tuple(range(len(session.labels)))
    given = (
        ("metric", metric, tuple(METRICS)),
        ("class", target, classes),
        ("class", against, classes),
        ("site", site, sites(session.subject)),
        ("direction", into, tuple(DIRECTIONS.values())),
    )
    for name, value, offered in given:
        if isinstance(value, bool) or value not in offered:
            some = ", ".join(map(str, offered[:10]))
            raise PrismaError(f"expected a {name} among {some}; found {quoted(value, 40)}")
    if metric == "logit_diff" and target == against:
        raise PrismaError("expected two different classes for a logit difference; found the same class twice")
    return Question(_question(session).corrupt, metric, target, against, site, into)


def metric_of(question: Question, labels: Sequence[str]) -> tuple[Metric, str]:
    """The metric, and its name in words."""
    if question.metric == "probability":
        return Probability(question.target), f"probability ({labels[question.target]})"
    name = f"logit ({labels[question.target]}) - logit ({labels[question.against]})"
    return LogitDiff(question.target, question.against), name


def _question(session: Session) -> Question:
    question: Question = session.states[NAME]
    return question


def _choose_corrupt(session: Session, value: Any) -> Question:
    corrupt = session.subject.example(answer(value, "index"))
    if corrupt.example == session.picture.example:
        raise PrismaError("expected a corrupt image that differs from the clean image; found the same image")
    return default_question(session.subject, session.picture, corrupt, _question(session))


def _expect_quick(config: ViTConfig) -> None:
    runs = config.n_layers * (config.n_heads + config.n_tokens)
    weights = config.n_layers * config.d_model * (4 * config.d_model + 2 * config.d_mlp)
    if runs * weights * config.n_tokens > MAX_COST:
        raise PrismaError(
            f"patching every head and token of this model takes {runs:,} runs of {weights:,} weights on "
            f"{config.n_tokens} tokens, longer than a visitor can wait; use prisma.sweep in Python for this model"
        )
