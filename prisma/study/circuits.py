"""The estimates of patching, and the evaluation of circuits, that can run over a data set; listed by the catalog."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from prisma.analysis.circuits.atp_star import AtpStar, atp_star
from prisma.analysis.circuits.circuit_evaluation import CircuitEvaluation, circuit_evaluation, edge_scores
from prisma.analysis.circuits.relevance_patching import RelevancePatching, relevance_patching
from prisma.analysis.patching.corruptions import OF_OBJECTS
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs

PAIRS: Mapping[str, Any] = {
    "metric": "logit_diff",
    "target": None,
    "corrupt": "other",
    "sigma": None,
    "seed": 0,
    "into": "clean",
}
"""The options of an analysis of pairs."""

SCORED = 64
"""How many images edges are scored on."""


def _scores(inputs: ShardInputs) -> Tensor:
    """The scores of edges on other images than those of the figures, if there are any: training images of a task.

    Those of a folder, and those whose object is removed (training images come without masks), are its first images.
    """
    pictures, others = inputs.pictures, inputs.pictures.training
    if others is not None and inputs.options["corrupt"] not in OF_OBJECTS:
        images, labels = others(SCORED)
        names = tuple(f"training/{i}" for i in range(len(images)))
        pictures = replace(pictures, names=names, read=lambda rows: images[list(rows)], masks=None, labels=labels)
    first = replace(inputs, pictures=pictures, rows=range(min(SCORED, len(pictures))), kept={})
    options = inputs.select_options("tokens", "steps", "rules")
    return edge_scores(first.model, first.images, first.corrupt, first.metric, batch=inputs.batch, **options)


def _circuit_evaluation(inputs: ShardInputs) -> CircuitEvaluation:
    return circuit_evaluation(
        inputs.model,
        inputs.images,
        inputs.corrupt,
        inputs.metric,
        inputs.once("scores of edges", lambda: _scores(inputs)),
        batch=inputs.batch,
        **inputs.select_options("steps", "rules", "draws", "seed"),
    )


CIRCUITS: Mapping[str, Analysis] = {
    "atp_star": Analysis(
        "Attribution patching with patterns recomputed for queries and keys, and without cancellation (AtP*).",
        {**PAIRS, "grad_drop": True},
        AtpStar,
        lambda inputs: atp_star(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "grad_drop"),
        ),
    ),
    "relevance_patching": Analysis(
        "Attribution patching with relevance in the place of the gradient (RelP).",
        {**PAIRS, "rules": "cp_lrp"},
        RelevancePatching,
        lambda inputs: relevance_patching(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "rules"),
        ),
    ),
    "circuit_evaluation": Analysis(
        "How faithful the circuits of all sizes are that edge scores give, beside random ones: MIB's CMD and CPR.",
        {
            **{name: value for name, value in PAIRS.items() if name != "into"},
            "tokens": False,
            "steps": 5,
            "rules": "gradient",
            "draws": 5,
        },
        CircuitEvaluation,
        _circuit_evaluation,
    ),
}
"""Name -> analysis."""
