"""The circuit of a pair: the few edges that alone give the metric, and how good it is beside random circuits.

Edges lie between the embedding, heads, MLPs and the logits. In a circuit's run its edges carry the clean run's values,
all others those of the corrupt run. A circuit of one pair may hold for no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.circuits.circuit_discovery import CircuitDiscovery, circuit_discovery
from prisma.analysis.circuits.circuit_evaluation import CircuitEvaluation, circuit_evaluation
from prisma.analysis.circuits.graph import Graph
from prisma.errors import PrismaError
from prisma.view.browser import View, numbers
from prisma_app.cache import Cache
from prisma_app.library import Scene
from prisma_app.views.patching.maps import count_weights, is_quick, pair_code
from prisma_app.views.patching.question import Question, question_of
from prisma_app.views.shared import nested, program

DRAWS = 10  # random circuits of each size
CODE = """found = prisma.circuit_discovery(loaded.model, x, corrupt, metric)
circuit = found.scores * found.edges  # [sender, receiver]: how much replacing an edge of the circuit changes the metric
evaluation = prisma.circuit_evaluation(loaded.model, x, corrupt, metric, found.scores)
"""


@dataclass(frozen=True)
class Found:
    """A circuit and its figures."""

    circuit: CircuitDiscovery
    evaluation: CircuitEvaluation


KEPT: Cache[Found] = Cache(64 * 2**20, lambda found: 20_000 + 8 * found.circuit.scores.numel())
"""By all that decides a circuit: the model, pair, and metric."""


def circuit_run(scene: Scene) -> View:
    """The edges of the circuit with their scores, and its figures, each beside those of random circuits.

    Raises:
        PrismaError: the model has too many edges for a visitor's time; the two runs do not differ in the metric, or it
            has no gradient; as `question_of`.
    """
    question = question_of(scene)
    found = _found(scene, question)
    circuit = found.circuit
    places = circuit.edges.nonzero()
    facts = {
        "senders": circuit.metadata["senders"],
        "receivers": circuit.metadata["receivers"],
        "count": int(Graph(question.config).edges.sum()),
        "figures": _figures(found),
        "draws": DRAWS,
        "metric": question.name,
        "more": CODE,
        "state": scene.resolved(corrupt=scene.corrupt.img, **question.state()),
    }
    kept = circuit.scores[circuit.edges], circuit.removal[circuit.edges]
    arrays = {"edges": numbers(places), "scores": numbers(kept[0]), "removal": numbers(kept[1])}
    return View(facts, arrays)


def circuit_values(scene: Scene) -> dict[str, Any]:
    """The scores of the circuit's edges [sender, receiver], 0 for all others, and the figures."""
    question = question_of(scene)
    found = _found(scene, question)
    circuit = found.circuit
    names = {"senders": circuit.metadata["senders"], "receivers": circuit.metadata["receivers"]}
    pair = {"clean": scene.picture.img, "corrupt": scene.corrupt.img}
    more = {"edges": [list(edge) for edge in circuit.named()], "figures": _figures(found), "pair": pair}
    asked = {key: value for key, value in question.state().items() if key in ("target", "against")}
    values = circuit.scores * circuit.edges
    return nested(scene, ["sender", "receiver"], values, **names, **more, metric=scene.state.metric, **asked)


def circuit_code(scene: Scene) -> str:
    """The Python that finds the circuit and its figures."""
    lines, imports = pair_code(scene, question_of(scene))
    return program(f"{lines}{CODE}", imports)


def _found(scene: Scene, question: Question) -> Found:
    expect_quick(question)
    subject, state = scene.subject, scene.state
    pair = (subject.name, subject.rev, scene.step, scene.picture.img, scene.corrupt.img)
    key = (*pair, state.metric, question.target, question.against, state.prompts)
    return KEPT.get(key, lambda: _find(question))


def _find(question: Question) -> Found:
    asked = (question.model, question.clean, question.corrupt, question.metric)
    circuit = circuit_discovery(*asked, draws=DRAWS)
    return Found(circuit, circuit_evaluation(*asked, circuit.scores, draws=DRAWS))


def expect_quick(question: Question) -> None:
    """Raises PrismaError if runs for every edge take longer than a visitor waits."""
    if not is_quick(question.model):
        raise PrismaError(
            "expected a model that is small enough to run once for each edge while a visitor waits; found "
            f"{int(Graph(question.config).edges.sum()):,} edges and {count_weights(question.model):,} parameters: use "
            "prisma.circuit_discovery or prisma.path_patching in Python"
        )


def _figures(found: Found) -> list[dict[str, Any]]:
    """Name, value, and the least, mean and most of random circuits."""
    circuit, evaluation = found.circuit, found.evaluation
    known: Sequence[tuple[str, float, Tensor]] = [
        ("faithfulness", circuit.faithfulness, circuit.random_faithfulness),
        ("completeness", circuit.completeness, torch.zeros(0)),
        ("cpr", evaluation.cpr, evaluation.random_cpr),
        ("cmd", evaluation.cmd, evaluation.random_cmd),
    ]
    return [
        {
            "name": name,
            "value": value,
            "random": [float(at(x)) for at in (Tensor.min, Tensor.mean, Tensor.max)] if len(x) else None,
        }
        for name, value, x in known
    ]
