"""What the endpoints answer. Apart from `api`, because this imports torch, and the endpoints are offered before."""

from collections.abc import Callable, Mapping
from typing import Any

from prisma.errors import PrismaError
from prisma_app.answers import answer_of
from prisma_app.lanes import HEAVY, LIGHT
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.subject import Subject
from prisma_app.views import VIEWS
from prisma_app.views.naming import naming_values
from prisma_app.views.registers import registers_values

SLOW = ("patching", "circuit", "estimates", "naming", "paths", "registers", "steering", "training")
"""What is computed in the heavy lane."""
OTHERS: Mapping[str, Callable[[Scene], dict[str, Any]]] = {
    "answer": answer_of,
    "circuit": VIEWS["patching"].circuit_values,
    "estimates": VIEWS["patching"].compared_values,
    "naming": naming_values,
    "paths": VIEWS["patching"].paths_values,
    "registers": registers_values,
}
"""What no view of its own has."""


def asked(library: Library, what: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of what is asked, of the state with these keys; None is the default.

    Args:
        what: a view; "answer" for the logits, "circuit", "estimates" and "paths" for those of a pair.
    """
    state = State.of(values)
    with (HEAVY if what in SLOW else LIGHT).place():
        scene = library.scene(state)
        return (OTHERS[what] if what in OTHERS else VIEWS[what].values)(scene)


def entry(library: Library, name: str) -> dict[str, Any]:
    """A model: its commit, training steps, layers, heads, tokens, classes, and number of examples.

    Of one that cannot be read, the reason: the others still can.
    """
    try:
        return _entry(library.subject(name, None), name)
    except PrismaError as error:
        return {"model": name, "error": library.words(error)}


def _entry(subject: Subject, name: str) -> dict[str, Any]:
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
