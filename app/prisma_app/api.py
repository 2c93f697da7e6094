"""What programs can ask the app over its API, beside the page: `gradio_client.Client(url).predict(..., api_name=...)`.

`prisma space` asks both after it has made a Space, and compares the numbers with its own.
"""

import html
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import torch

from prisma import __version__
from prisma.errors import PrismaError
from prisma_app.subject import Subject


def offer(find: Callable[[Any], Subject], known: Sequence[str], build: str | None) -> None:
    """Add the endpoints `/about` and `/answer`, inside a `gr.Blocks`.

    Args:
        find: from the name of a model to the model.
        known: the names.
        build: what tells one build of a Space from another.
    """

    def about() -> dict:  # type: ignore[type-arg]  # Gradio makes the endpoint's types from the annotations
        """The version of Prisma, the names of the models, and the build of the Space (None elsewhere)."""
        return {"prisma": __version__, "models": list(known), "build": build}

    def answer(model: str, step: float, image: float) -> dict:  # type: ignore[type-arg]
        """What a model answers: its logit for every class, after training step `step`, for example image `image`."""
        try:
            return answer_of(find(model), step, image)
        except PrismaError as error:
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None

    # In the page's queue, so that programs and visitors take turns.
    gr.api(about, api_name="about", concurrency_id="session", concurrency_limit=1)
    gr.api(answer, api_name="answer", concurrency_id="session", concurrency_limit=1)


def answer_of(subject: Subject, step: float, image: float) -> dict[str, Any]:
    """The logits of a model after a training step for one of its examples, with the name of each class.

    Anyone may send these values.

    Raises:
        PrismaError: the model has no such step or example.
    """
    index = subject.index_of(_whole(step, "a training step"))
    picture = subject.example(int(_whole(image, "the number of an example")))
    with torch.no_grad():
        logits = subject.at(index).model(picture.x[None])[0]
    return {
        "model": subject.name,
        "step": subject.steps[index],
        "image": picture.caption,
        "labels": subject.labels,
        "logits": [float(x) for x in logits],
    }


def _whole(value: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or abs(value) > 1e15:
        raise PrismaError(f"expected {what}, a whole number; found {str(value)[:40]!r}")
    return str(int(value))
