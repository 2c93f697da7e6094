"""Decomposed logits of the app: the library's numbers, which sum to the model's logit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import decompose

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import assert_near, unpack


@pytest.mark.parametrize("model", [DIGITS, GLYPHS])
def test_the_bars_are_the_librarys_and_sum_to_the_logit(scene: Callable[..., Scene], model: str) -> None:
    there = scene(model=model, img="2")
    logits = there.loaded.model(there.picture.x[None])[0]
    facts, arrays = unpack(decompose.view(there).pack())
    target = int(logits.argmax())
    assert facts["state"]["target"] == target and facts["state"]["against"] is None
    assert_near(arrays["parts"].sum(), logits[target], 1e-5)
    assert facts["sum"] == pytest.approx(facts["value"], abs=1e-5)
    assert facts["value"] == pytest.approx(float(logits[target]), abs=1e-5)
    found = prisma.direct_logit_attribution(there.loaded.model, there.picture.x[None], prisma.Logit(target))
    assert found.heads is not None
    layer, head = (count - 1 for count in found.heads.shape[1:])
    place = facts["names"].index(f"layer {layer}, head {head}")
    assert float(arrays["parts"][place]) == pytest.approx(float(found.heads[0, layer, head]), abs=1e-6)
    assert facts["groups"][place] == f"layer {layer}"
    assert len(facts["names"]) == len(set(facts["names"])) == arrays["parts"].numel()


def test_the_difference_of_two_logits(scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS, img="2", target=2, against=7)
    logits = there.loaded.model(there.picture.x[None])[0].double()
    found = decompose.values(there)
    assert sum(found["values"]) == pytest.approx(float(logits[2] - logits[7]), abs=1e-5)
    assert found["logit"] == pytest.approx(float(logits[2] - logits[7]), abs=1e-5)
    assert (found["target"], found["against"], found["axes"]) == (2, 7, ["part"])


@pytest.mark.parametrize("keys", [{}, {"target": 4}, {"target": 4, "against": 1}])
def test_code_gives_the_values(scene: Callable[..., Scene], keys: dict[str, int]) -> None:
    there = scene(model=DIGITS, step=16, img="5", **keys)
    made: dict[str, Any] = {}
    exec(decompose.code(there), made)
    assert_near(torch.tensor(decompose.values(there)["values"], dtype=torch.float64), made["values"], 1e-5)
    assert made["values"].sum().item() == pytest.approx(made["found"].value.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"target": 10}, "expected a class from 0 to 9; found 10"),
        ({"target": 1, "against": 12}, "expected a class from 0 to 9; found 12"),
        ({"target": 3, "against": 3}, "expected two classes that differ"),
    ],
)
def test_mistakes_are_sentences(scene: Callable[..., Scene], keys: dict[str, int], sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        decompose.view(scene(model=DIGITS, **keys))


def test_prompts_are_decomposed_too(clip_library: Library) -> None:
    there = clip_library.scene(State.of({"prompts": "a red square\na blue circle", "target": 1}))
    logits = there.loaded.model(there.picture.x[None])[0]
    assert sum(decompose.values(there)["values"]) == pytest.approx(float(logits[1]), abs=1e-4)


@pytest.mark.parametrize("img", ["1", "7"])
def test_code_makes_the_examples_of_pretrained_models(vit_library: Library, img: str) -> None:
    there = vit_library.scene(State.of({"img": img}))
    made: dict[str, Any] = {}
    exec(decompose.code(there), made)
    assert torch.equal(made["x"][0], there.picture.x)
    assert_near(torch.tensor(decompose.values(there)["values"], dtype=torch.float64), made["values"], 1e-4)
