"""What several views use: default tokens, and the Python around their numbers."""

from collections.abc import Callable
from typing import Any

import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.shared import code_head, default_token, nested

from tests.app.conftest import DIGITS


def test_the_default_token_is_the_class_token(scene: Callable[..., Scene]) -> None:
    assert default_token(scene(model=DIGITS)) == 0 and default_token(scene(model=DIGITS, token=9)) == 9


def test_numbers_have_names_for_their_axes_and_say_what_they_are_of(scene: Callable[..., Scene]) -> None:
    found = nested(scene(model=DIGITS, step=8, img="3"), ["row", "column"], torch.eye(2), more="words")
    assert found["axes"] == ["row", "column"] and found["values"] == [[1, 0], [0, 1]] and found["more"] == "words"
    assert (found["model"], found["step"], found["img"]) == (DIGITS, 8, "3")


def test_the_python_loads_the_model_and_makes_its_input(scene: Callable[..., Scene], vit_library: Library) -> None:
    for there in (scene(model=DIGITS, step=8, img="3"), vit_library.scene(State.of({"img": "4"}))):
        made: dict[str, Any] = {}
        exec(code_head(there), made)
        assert torch.equal(made["x"][0], there.picture.x)
        assert torch.equal(made["loaded"].model(made["x"]), there.loaded.model(there.picture.x[None]))
