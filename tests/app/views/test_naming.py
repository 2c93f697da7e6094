"""Naming heads: the names and shares are the library's, for a mouse by its classes and for a CLIP by its prompts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import decompose, naming

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS
from tests.app.unpack import unpack


def checked(there: Scene, steps: int) -> dict[str, Any]:
    """Compares what the app shows of a scene with the library; gives the facts."""
    facts, arrays = unpack(decompose.view(there, 0).pack())
    images = torch.stack([picture.x for picture in there.subject.test_images(128)])
    labels = there.subject.labels
    wanted = prisma.text_span(there.loaded.model, images, names=labels, steps=steps, controls=3)
    shares = {"explained": wanted.explained, "random": wanted.random_explained, "size": wanted.size[..., None]}
    for name, values in shares.items():
        torch.testing.assert_close(arrays[name], values[..., -1].double(), rtol=1e-5, atol=1e-6)
    for (layer, head), names in wanted.heads().items():
        assert facts["names"][layer][head] == names
    assert facts["similarity"] == pytest.approx(wanted.similarity[:, [0, steps]].mean(0).tolist())
    assert facts["read"] == len(images) and facts["state"]["span"] == steps
    below = dict[str, Any]()  # in the file that the page saves, the Python of the names is below that of the bars
    exec(decompose.view(there).facts["code"] + facts["more"], below)
    torch.testing.assert_close(below["explained"].double(), arrays["explained"], rtol=0, atol=1e-6)
    answer, made = naming.naming_values(there), dict[str, Any]()
    exec(naming.naming_code(there), made)
    torch.testing.assert_close(made["explained"], torch.tensor(answer["values"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(made["by_chance"], torch.tensor(answer["random"]), rtol=0, atol=1e-6)
    assert answer["names"] == facts["names"] and answer["axes"] == ["layer", "head"] and answer["span"] == steps
    return dict(facts)


def test_heads_of_a_mouse_are_named_by_its_classes(scene: Callable[..., Scene]) -> None:
    facts = checked(scene(model=DIGITS, span=2), 2)
    assert facts["what"] == "classes" and {len(names) for row in facts["names"] for names in row} == {2}
    assert {name for row in facts["names"] for names in row for name in names} <= {str(i) for i in range(10)}


def test_heads_of_a_clip_are_named_by_its_prompts(clip_library: Library) -> None:
    there = clip_library.scene(State.of({"prompts": "a cat\ntwo dogs\na tree"}))
    facts = checked(there, 3)
    assert facts["what"] == "prompts" and facts["read"] == 11
    assert {name for row in facts["names"] for names in row for name in names} == {"a cat", "two dogs", "a tree"}


def test_outputs_that_are_no_classes_are_not_called_so(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = scene(model=DIGITS)
    assert naming._what(there) == "classes"
    monkeypatch.setattr(
        type(there.subject), "about", lambda self: {"result": {"name": "test r2", "value": 0.9, "n": 9}}
    )
    assert naming._what(there) == "outputs"


def test_what_has_no_names_is_one_sentence(
    scene: Callable[..., Scene], vit_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PrismaError, match="expected from 1 to 10 names of each head; found 11"):
        decompose.view(scene(model=DIGITS, span=11), 0)
    with pytest.raises(PrismaError, match=r"expected part 0 \(the names of heads\) of decompose; found 1"):
        decompose.view(scene(model=DIGITS), 1)
    there = vit_library.scene(State.of({"img": "1"}))
    monkeypatch.setattr(naming, "MOST_WORK", 1)
    assert naming._most(there, there.config) == 2  # of a large model fewer images are read
    monkeypatch.setattr(Scene, "config", replace(there.config, n_classes=0))
    with pytest.raises(PrismaError, match="expected a model with classes, or a CLIP with prompts, whose directions"):
        decompose.view(there, 0)


def test_a_head_that_never_varies_has_no_share() -> None:
    assert naming._listed(torch.tensor([[0.5, torch.nan]])) == [[0.5, None]]
