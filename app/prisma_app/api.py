"""What programs can ask the app: `gradio_client.Client(url).predict(..., api_name="/attention")`.

The arguments have the names of an address (`State`), the answers are numbers as nested lists with the names of their
axes. `prisma space` asks `/about` and `/answer` after it has made a Space, and compares the numbers with its own.
"""

import html
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from prisma import __version__
from prisma.errors import PrismaError
from prisma_app.answers import answer_of
from prisma_app.lanes import HEAVY, LIGHT, Lane
from prisma_app.library import Library, Scene
from prisma_app.server import log
from prisma_app.state import State
from prisma_app.views import VIEWS

# Gradio makes the documentation of an endpoint from its annotations, and checks nothing: `State.of` does.
Name = str | None
Number = float | None
Answer = dict[str, Any]


ENDPOINTS = ("about", "models", "answer", "attention", "lens", "patching", "decompose", "training")


def offer(library: Library) -> None:
    """Add the endpoints, inside a `gr.Blocks`."""
    endpoints = Endpoints(library)
    for name in ENDPOINTS:
        # No limit here: the lanes limit what runs, whichever way a question comes.
        gr.api(getattr(endpoints, name), api_name=name, concurrency_limit=None)


class Endpoints:
    """One method for each endpoint. Its docstring and arguments are what a program sees."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def about(self) -> Answer:
        """The version of Prisma, the names of the models, and the build of the Space (None elsewhere)."""
        return {"prisma": __version__, "models": list(self._library.names), "build": self._library.build}

    def models(self) -> Answer:
        """The models: their names, commits, training steps, layers, heads, and classes."""
        return _as_sentences(lambda: {"models": [_entry(self._library, name) for name in self._library.names]})

    def answer(
        self, model: Name = None, step: Number = None, img: Name = None, rev: Name = None, prompts: Name = None
    ) -> Answer:
        """What a model answers for an image: the logit of every class."""
        return self._ask({"model": model, "step": step, "img": img, "rev": rev, "prompts": prompts}, answer_of)

    def attention(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        layer: Number = None,
        head: Number = None,
        token: Number = None,
    ) -> Answer:
        """Attention patterns of a layer [head, query, key]; of one head, or from one token, if they are given."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "layer": layer, "head": head, "token": token}
        return self._ask(given, VIEWS["attention"].values)

    def lens(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        token: Number = None,
        prompts: Name = None,
    ) -> Answer:
        """The logit lens: logits [stage, class] of the whole image, or of one token alone if it is given."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "token": token, "prompts": prompts}
        return self._ask(given, VIEWS["lens"].values)

    def patching(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        corrupt: Name = None,
        metric: Name = None,
        into: Name = None,
        site: Name = None,
        target: Number = None,
        against: Number = None,
        prompts: Name = None,
    ) -> Answer:
        """Exact activation patching: the metric after each head [layer, head] was patched, and the recovered share."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "prompts": prompts}
        asked = {"corrupt": corrupt, "metric": metric, "into": into, "site": site, "target": target, "against": against}
        return self._ask({**given, **asked}, VIEWS["patching"].values, HEAVY)

    def decompose(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        target: Number = None,
        against: Number = None,
        prompts: Name = None,
    ) -> Answer:
        """Direct logit attribution: what each component writes to a class's logit; the parts sum to the logit."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "prompts": prompts}
        return self._ask({**given, "target": target, "against": against}, VIEWS["decompose"].values)

    def training(self, model: Name = None, rev: Name = None, img: Name = None) -> Answer:
        """Training: what the run logged, and the scores of every head at every published step."""
        return self._ask({"model": model, "rev": rev, "img": img}, VIEWS["training"].values, HEAVY)

    def _ask(self, given: Mapping[str, Any], answer: Callable[[Scene], dict[str, Any]], lane: Lane = LIGHT) -> Answer:
        return _as_sentences(lambda: _answered(self._library, given, answer, lane))


def _answered(library: Library, values: Mapping[str, Any], answer: Callable[[Scene], Any], lane: Lane) -> Any:
    scene = library.scene(State.of({name: value for name, value in values.items() if value is not None}))
    with lane.place():
        return answer(scene)


def _entry(library: Library, name: str) -> dict[str, Any]:
    subject = library.subject(name, None)
    config = subject.final.config
    return {
        "model": name,
        "rev": subject.rev,
        "steps": subject.steps,
        "layers": config.n_layers,
        "heads": config.n_heads,
        "tokens": config.n_tokens,
        "labels": subject.labels,
        "examples": len(subject.examples()),
    }


def _as_sentences(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a computation gives. Its errors become one sentence, without what the visitor sent in the log."""
    try:
        return compute()
    except PrismaError as error:
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None
    except Exception as error:
        log.error("an endpoint failed: %s", type(error).__name__)
        raise gr.Error("this could not be computed, by a fault of the server", print_exception=False) from None
