"""An estimate of every patch, by any of the library's ways, to be drawn beside what exact runs give.

The maps of patching show attribution patching until a cell is exact. Here a visitor chooses the way, and sees how far
it agrees with exact runs on this pair, for heads, for their queries, keys and values, or for tokens of a site.
"""

from typing import Any

import torch
from torch import Tensor

from prisma.analysis.patching.activation_patching import activation_patching
from prisma.view.browser import View, numbers
from prisma_app.lanes import HEAVY
from prisma_app.library import Scene
from prisma_app.views.patching.maps import are_quick, pair_code
from prisma_app.views.patching.question import Question, question_of
from prisma_app.views.patching.runs import exact_heads, time_until
from prisma_app.views.patching.ways import SIDES, WAYS, parts_of
from prisma_app.views.shared import nested, program


def compared_run(scene: Scene) -> View:
    """By how much each part is estimated to change the metric, and for queries, keys and values what exact runs give.

    Arrays: `estimate.PART` [layer, head], or [layer, token] for tokens, for the parts that the way has; `exact.PART`
    for queries, keys and values, where exact runs are quick. The exact heads and tokens are those of the maps.

    Raises:
        PrismaError: the way is not defined for this model or metric; as `question_of`.
    """
    question, name = question_of(scene), _name(scene)
    way, found = WAYS[name], parts_of(question, name)
    arrays = {f"estimate.{part}": numbers(values) for part, values in found.items()}
    if are_quick(question.config):
        arrays |= {f"exact.{part}": numbers(_exact(question, part)) for part in found if part in SIDES}
    facts = {
        "parts": list(found),
        "signed": way.signed,
        "name": way.name,
        "words": way.words,
        "more": _lines(question, name),
        "state": scene.resolved(corrupt=scene.corrupt.img, estimate=name, **question.state()),
    }
    return View(facts, arrays)


def compared_values(scene: Scene) -> dict[str, Any]:
    """By how much patching each head is estimated to change the metric [layer, head], and what exact runs change.

    `parts` has the same for the other parts that the way has; `signed` is false for sizes.
    """
    question, name = question_of(scene), _name(scene)
    found = parts_of(question, name)
    runs = {run: question.measured(logits) for run, logits in question.logits().items()}
    exact = exact_heads(question, time_until(HEAVY.seconds)) - runs[question.into]
    axes = {part: ["layer", "token" if part == "tokens" else "head"] for part in found if part != "heads"}
    return nested(
        scene,
        ["layer", "head"],
        found["heads"],
        estimate=name,
        signed=WAYS[name].signed,
        exact=exact.double().tolist(),
        parts={part: {"axes": of, "values": found[part].double().tolist()} for part, of in axes.items()},
        pair={"clean": scene.picture.img, "corrupt": scene.corrupt.img},
        metric=scene.state.metric,
        **runs,
        **question.state(),
    )


def compared_code(scene: Scene) -> str:
    """The Python that computes the estimate of every head."""
    question = question_of(scene)
    lines, imports = pair_code(scene, question)
    return program(f"{lines}{_lines(question, _name(scene))}", imports)


def _lines(question: Question, name: str) -> str:
    return f"found = {WAYS[name].call(question.into)}\nestimate = found.heads[0]  # [layer, head]\n"


def _name(scene: Scene) -> str:
    return scene.state.estimate or next(iter(WAYS))


@torch.no_grad()
def _exact(question: Question, part: str) -> Tensor:
    """By how much patching the queries, keys or values of each head changes the metric [layer, head]."""
    model, pair = question.model, (question.clean, question.corrupt)
    return activation_patching(model, *pair, SIDES[part], question.metric, into=question.into, axis="head").change
