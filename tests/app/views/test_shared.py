"""What several views use: default tokens, and the Python around their numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from prisma_app.findings import FINDINGS
from prisma_app.library import Library, Scene, library_of
from prisma_app.pictures import keep_upload
from prisma_app.state import State
from prisma_app.views import VIEWS
from prisma_app.views.shared import code_head, default_token, nested, program

from prisma.repository import Published
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
        exec(program(code_head(there)), made)
        assert torch.equal(made["x"][0], there.picture.x)
        assert torch.equal(made["loaded"].model(made["x"]), there.loaded.model(there.picture.x[None]))


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "latents"])  # of which these mice have none
@pytest.mark.parametrize("keys", [{"img": "3"}, {key: FINDINGS[2].keys[key] for key in ("img", "corrupt")}])
def test_the_python_of_a_mouse_in_the_package_gives_its_numbers(name: str, keys: dict[str, str]) -> None:
    there, made = library_of(None, "mice/induction", ()).scene(State.of(keys)), dict[str, Any]()
    exec(VIEWS[name].code(there), made)
    torch.testing.assert_close(made["values"], torch.tensor(VIEWS[name].values(there)["values"]), rtol=1e-5, atol=2e-6)


def test_the_python_names_the_commit_that_is_shown(scene: Callable[..., Scene], lab: Path) -> None:
    there = scene(model=DIGITS, step=8)
    at_step = Published(DIGITS, lab).commit_of("step-000008")
    assert f"prisma.load({DIGITS!r}, {at_step!r}" in code_head(there)
    assert f"commit={there.subject.rev!r}).probe()" in code_head(there)


def test_the_python_of_an_upload_makes_it_as_small_as_the_app_does(
    scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((1600, 1200)).save("your-image.png")
    there, made = scene(model=DIGITS, img=keep_upload(Path("your-image.png").read_bytes())), dict[str, Any]()
    exec(VIEWS["attention"].code(there), made)
    assert torch.equal(made["x"][0], there.picture.x)
