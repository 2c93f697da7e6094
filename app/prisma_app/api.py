"""What programs can ask the app: `gradio_client.Client(url).predict(..., api_name="/attention")`.

The arguments have the names of an address (`State`), the answers are numbers as nested lists with the names of their
axes. `prisma space` asks `/about` and `/answer` after it has made a Space, and compares the numbers with its own.
"""

import html
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from prisma import __version__
from prisma.errors import PrismaError
from prisma_app.shell import gr
from prisma_app.state import State

if TYPE_CHECKING:
    from prisma_app.library import Library

# Gradio makes the documentation of an endpoint from its annotations, and checks nothing: `State.of` does.
Name = str | None
Number = float | None
Answer = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("prisma_app")


def offer(library: "Callable[[], Library]") -> None:
    """Add the endpoints, inside a `gr.Blocks`. The first call of one asks for the library."""
    endpoints = Endpoints(library)
    for name in ENDPOINTS:
        # No limit here: the lanes limit what runs, whichever way a question comes.
        gr.api(getattr(endpoints, name), api_name=name, concurrency_limit=None)


def _with_arguments(method: F) -> F:
    """What each argument is, in the docstring, where Gradio looks for it."""
    lines = [f"    {key}: {State.model_fields[key].description}" for key in [*signature(method).parameters][1:]]
    method.__doc__ = "\n".join([method.__doc__ or "", "", "Args:", *lines])
    return method


class Endpoints:
    """One method for each endpoint. Its docstring and arguments are what a program sees."""

    def __init__(self, library: "Callable[[], Library]") -> None:
        self._library = library

    def about(self) -> Answer:
        """The version of Prisma, the names of the models, and the build of the Space (None elsewhere)."""
        return self._told(
            lambda library: {"prisma": __version__, "models": list(library.names), "build": library.build}
        )

    def models(self) -> Answer:
        """The models: their names, commits, training steps, layers, heads, and classes."""
        return self._told(lambda library: {"models": [_programs().entry(library, name) for name in library.names]})

    @_with_arguments
    def answer(
        self, model: Name = None, step: Number = None, img: Name = None, rev: Name = None, prompts: Name = None
    ) -> Answer:
        """What a model answers for an image: the logit of every class."""
        return self._ask("answer", {"model": model, "step": step, "img": img, "rev": rev, "prompts": prompts})

    @_with_arguments
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
        return self._ask("attention", given)

    @_with_arguments
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
        return self._ask("lens", given)

    @_with_arguments
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
        return self._ask("patching", {**given, **asked})

    @_with_arguments
    def circuit(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        corrupt: Name = None,
        metric: Name = None,
        target: Number = None,
        against: Number = None,
        prompts: Name = None,
    ) -> Answer:
        """The circuit of a pair: the edges that alone give the metric, their scores [sender, receiver], its figures."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "prompts": prompts}
        return self._ask(
            "circuit", {**given, "corrupt": corrupt, "metric": metric, "target": target, "against": against}
        )

    @_with_arguments
    def paths(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        corrupt: Name = None,
        metric: Name = None,
        into: Name = None,
        target: Number = None,
        against: Number = None,
        prompts: Name = None,
    ) -> Answer:
        """Path patching [form, sender, receiver]: by how much each path changes the metric, MLPs frozen or computed."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "prompts": prompts}
        asked = {"corrupt": corrupt, "metric": metric, "into": into, "target": target, "against": against}
        return self._ask("paths", {**given, **asked})

    @_with_arguments
    def estimates(
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
        estimate: Name = None,
        prompts: Name = None,
    ) -> Answer:
        """By how much patching each head is estimated to change the metric [layer, head], and what exact runs give."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "prompts": prompts, "estimate": estimate}
        asked = {"corrupt": corrupt, "metric": metric, "into": into, "site": site, "target": target, "against": against}
        return self._ask("estimates", {**given, **asked})

    @_with_arguments
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
        return self._ask("decompose", {**given, "target": target, "against": against})

    @_with_arguments
    def steering(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        target: Number = None,
        against: Number = None,
        steer: Name = None,
        where: Name = None,
        direction: Name = None,
        reach: Number = None,
    ) -> Answer:
        """Steering: the probability of a class [dose] when its direction is added to an activation, dose by dose."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "target": target, "against": against}
        asked = {"steer": steer, "where": where, "direction": direction, "reach": reach}
        return self._ask("steering", {**given, **asked})

    @_with_arguments
    def training(self, model: Name = None, rev: Name = None, img: Name = None) -> Answer:
        """Training: what the run logged, and the scores of every head at every published step."""
        return self._ask("training", {"model": model, "rev": rev, "img": img})

    @_with_arguments
    def latents(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        coder: Name = None,
        latent: Number = None,
        change: Name = None,
        prompts: Name = None,
    ) -> Answer:
        """Sparse coder: how active each latent [latent] is in the image; the logits as they are, and with a change."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "prompts": prompts}
        return self._ask("latents", {**given, "coder": coder, "latent": latent, "change": change})

    @_with_arguments
    def units(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        units: Name = None,
        layer: Number = None,
        head: Number = None,
        number: Number = None,
        prompts: Name = None,
    ) -> Answer:
        """A unit of a site: its largest activation in each test image [rank], which images, and where in the image."""
        given = {"model": model, "rev": rev, "img": img, "step": step, "layer": layer, "head": head}
        return self._ask("units", {**given, "units": units, "number": number, "prompts": prompts})

    @_with_arguments
    def registers(
        self,
        model: Name = None,
        rev: Name = None,
        img: Name = None,
        step: Number = None,
        outlying: Name = None,
        after: Number = None,
        moved: Number = None,
    ) -> Answer:
        """Register neurons: norms of patches [way, patch], as they are and with the neurons moved to a new token."""
        given = {"model": model, "rev": rev, "img": img, "step": step}
        return self._ask("registers", {**given, "outlying": outlying, "after": after, "moved": moved})

    @_with_arguments
    def naming(
        self, model: Name = None, rev: Name = None, step: Number = None, span: Number = None, prompts: Name = None
    ) -> Answer:
        """Names of heads [layer, head]: the classes, or prompts of a CLIP, that span what each writes to the output."""
        return self._ask("naming", {"model": model, "rev": rev, "step": step, "span": span, "prompts": prompts})

    def _ask(self, what: str, given: Mapping[str, Any]) -> Answer:
        return self._told(lambda library: _programs().asked(library, what, given))

    def _told(self, compute: "Callable[[Library], Answer]") -> Answer:
        """What a computation gives. Its errors become one sentence, without what the visitor sent in the log."""
        words: Callable[[PrismaError], str] = str
        try:
            library = self._library()
            words = library.words
            return compute(library)
        except PrismaError as error:
            raise gr.Error(html.escape(words(error), quote=False), print_exception=False) from None
        except Exception as error:
            log.error("an endpoint failed: %s", type(error).__name__)
            raise gr.Error("this could not be computed, by a fault of the server", print_exception=False) from None


NAMES = (
    "about", "models", "answer", "attention", "lens", "patching", "circuit", "paths", "estimates", "decompose",
    "steering", "training", "latents", "naming", "registers", "units",
)  # fmt: skip
ENDPOINTS: Mapping[str, Sequence[str]] = {name: [*signature(getattr(Endpoints, name)).parameters][1:] for name in NAMES}
"""The names of each endpoint's arguments."""


def _programs() -> Any:
    """By name, and not at the top: it imports torch, and an address is printed before that."""
    return import_module("prisma_app.programs")
