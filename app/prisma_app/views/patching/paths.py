"""The paths of a pair, by both forms of path patching: with the MLPs on the way frozen, and computed anew.

Frozen, a path is one edge: the receiver reads what the sender writes on the other image. Recomputed, it leads through
the MLPs between them as well, as Wang et al. patch paths.
"""

from typing import Any

import torch
from torch import Tensor

from prisma.analysis.circuits.graph import Graph
from prisma.analysis.circuits.path_patching import MLPS, PathPatching, path_patching
from prisma.view.browser import View, numbers
from prisma_app.library import Scene
from prisma_app.views.patching.circuit import expect_quick
from prisma_app.views.patching.maps import pair_code
from prisma_app.views.patching.question import Question, question_of
from prisma_app.views.shared import nested, program


def paths_run(scene: Scene) -> View:
    """By how much each path changes the metric: `changes` [form, sender, receiver], 0 where there is no path.

    Raises:
        PrismaError: the model has too many edges for a visitor's time; as `question_of`.
    """
    question = question_of(scene)
    changes, found = _found(question)
    facts = {
        "forms": list(MLPS),
        "senders": found.metadata["senders"],
        "receivers": found.metadata["receivers"],
        "count": int(Graph(question.config).edges.sum()),
        "mlps": question.config.d_mlp > 0,
        "metric": question.name,
        "more": _lines(question),
        "state": scene.resolved(corrupt=scene.corrupt.img, **question.state()),
    }
    return View(facts, {"changes": numbers(changes)})


def paths_values(scene: Scene) -> dict[str, Any]:
    """By how much each path changes the metric [form, sender, receiver]; `clean` and `corrupt` are the two runs."""
    question = question_of(scene)
    changes, found = _found(question)
    return nested(
        scene,
        ["form", "sender", "receiver"],
        changes,
        forms=list(MLPS),
        senders=found.metadata["senders"],
        receivers=found.metadata["receivers"],
        pair={"clean": scene.picture.img, "corrupt": scene.corrupt.img},
        metric=scene.state.metric,
        clean=found.clean.item(),
        corrupt=found.corrupt.item(),
        **{key: value for key, value in question.state().items() if key != "site"},
    )


def paths_code(scene: Scene) -> str:
    """The Python that computes the changes by both forms."""
    question = question_of(scene)
    lines, imports = pair_code(scene, question)
    return program(f"{lines}{_lines(question)}", imports)


def _lines(question: Question) -> str:
    return (
        f"forms = {MLPS!r}  # the MLPs between a sender and a receiver\n"
        f"paths = [prisma.path_patching(loaded.model, x, corrupt, metric, mlps=form, into={question.into!r}) "
        "for form in forms]\n"
        "changes = [path.change for path in paths]  # [sender, receiver] each; paths[0].top() lists the strongest\n"
    )


def _found(question: Question) -> tuple[Tensor, PathPatching]:
    expect_quick(question)
    asked = (question.model, question.clean, question.corrupt, question.metric)
    both = [path_patching(*asked, mlps=form, into=question.into) for form in MLPS]
    return torch.stack([found.change for found in both]), both[0]
