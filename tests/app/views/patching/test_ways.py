"""Ways to estimate: the Python that each shows is the call that it makes, and an address knows all of them."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from prisma_app.library import Scene
from prisma_app.state import State
from prisma_app.views import VIEWS
from prisma_app.views.patching.question import question_of
from prisma_app.views.patching.ways import WAYS, parts_of, ways_of

import prisma
from prisma import PrismaError
from tests.app.conftest import GLYPHS


def test_an_address_knows_every_way() -> None:
    assert State.model_fields["estimate"].annotation is not None
    names = [name for kind in get_args(State.model_fields["estimate"].annotation) for name in get_args(kind)]
    assert names == list(WAYS)


def test_a_way_that_a_model_is_too_shallow_for_is_not_offered(scene: Callable[..., Scene]) -> None:
    there = scene(model=GLYPHS)
    assert there.config.n_layers == 1 and list(ways_of(there.config)) == list(WAYS)[:-1]
    offered = VIEWS["patching"].view(there).facts["ways"]
    assert [name for name, _ in offered] == list(WAYS)[:-1]
    words = (
        r"expected a model of 2 layers or more for AtP\*; found 1: choose AtP, IG, RelP, RelP \(AttnLRP\), AtP\* \(QK"
    )
    with pytest.raises(PrismaError, match=words):
        parts_of(question_of(there), "atp_star")


@pytest.mark.parametrize("name", list(WAYS))
def test_the_call_that_is_shown_is_the_one_that_is_made(scene: Callable[..., Scene], name: str) -> None:
    there = scene(into="corrupt")
    question = question_of(there)
    known = {"prisma": prisma, "loaded": there.loaded, "x": question.clean, "corrupt": question.corrupt}
    found = eval(WAYS[name].call("corrupt"), {**known, "metric": question.metric})
    parts = parts_of(question, name)
    assert torch.equal(found.heads[0], parts["heads"])
    assert ("tokens" in parts) == hasattr(found, "tokens") and ("keys" in parts) == hasattr(found, "sides")
    assert WAYS[name].signed or bool((parts["heads"] >= 0).all())
