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


ENDPOINTS = ("about", "models", "answer", "attention", "lens", "patching", "decompose", "training")


def offer(library: Library) -> None:
    """Add the endpoints, inside a `gr.Blocks`."""

    def ask(values: Mapping[str, Any], answer: Callable[[Scene], dict[str, Any]], lane: Lane = LIGHT) -> dict[str, Any]:
        return _as_sentences(lambda: _answered(library, values, answer, lane))

    def about() -> dict:  # type: ignore[type-arg]
        """The version of Prisma, the names of the models, and the build of the Space (None elsewhere)."""
        return {"prisma": __version__, "models": list(library.names), "build": library.build}

    def models() -> dict:  # type: ignore[type-arg]
        """The models: their names, commits, training steps, layers, heads, and classes."""
        return _as_sentences(lambda: {"models": [_entry(library, name) for name in library.names]})

    def answer(
        model: Name = None, step: Number = None, img: Name = None, rev: Name = None, prompts: Name = None
    ) -> dict:  # type: ignore[type-arg]
        """What a model answers for an image: the logit of every class."""
        return ask(locals_of(model=model, step=step, img=img, rev=rev, prompts=prompts), answer_of)

    def attention(
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        layer: Number = None,
        head: Number = None,
        token: Number = None,
    ) -> dict:  # type: ignore[type-arg]
        """Attention patterns of a layer [head, query, key]; of one head, or from one token, if they are given."""
        given = locals_of(model=model, rev=rev, img=img, step=step, layer=layer, head=head, token=token)
        return ask(given, VIEWS["attention"].values)

    def lens(
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        token: Number = None,
        prompts: Name = None,
    ) -> dict:  # type: ignore[type-arg]
        """The logit lens: logits [stage, class] of the whole image, or of one token alone if it is given."""
        given = locals_of(model=model, rev=rev, img=img, step=step, token=token, prompts=prompts)
        return ask(given, VIEWS["lens"].values)

    def patching(
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
    ) -> dict:  # type: ignore[type-arg]
        """Exact activation patching: the metric after each head [layer, head] was patched, and the recovered share."""
        given = locals_of(
            model=model,
            rev=rev,
            img=img,
            step=step,
            corrupt=corrupt,
            metric=metric,
            into=into,
            site=site,
            target=target,
            against=against,
            prompts=prompts,
        )
        return ask(given, VIEWS["patching"].values, HEAVY)

    def decompose(
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        target: Number = None,
        against: Number = None,
        prompts: Name = None,
    ) -> dict:  # type: ignore[type-arg]
        """Direct logit attribution: what each component writes to a class's logit; the parts sum to the logit."""
        given = locals_of(model=model, rev=rev, img=img, step=step, target=target, against=against, prompts=prompts)
        return ask(given, VIEWS["decompose"].values)

    def training(model: Name = None, rev: Name = None, img: Name = None) -> dict:  # type: ignore[type-arg]
        """Training: what the run logged, and the scores of every head at every published step."""
        return ask(locals_of(model=model, rev=rev, img=img), VIEWS["training"].values, HEAVY)

    made = locals()
    for name in ENDPOINTS:
        # No limit here: the lanes limit what runs, whichever way a question comes.
        gr.api(made[name], api_name=name, concurrency_limit=None)


def locals_of(**given: Any) -> dict[str, Any]:
    """The arguments that were given."""
    return {name: value for name, value in given.items() if value is not None}


def _answered(library: Library, values: Mapping[str, Any], answer: Callable[[Scene], Any], lane: Lane) -> Any:
    scene = library.scene(State.of(values))
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
