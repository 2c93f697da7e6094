"""The logit lens of the app: the library's numbers, few enough for a page."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import lens

import prisma
from prisma import PrismaError
from prisma.view.browser.lens import lens_arrays
from tests.app.conftest import DIGITS
from tests.app.unpack import assert_near, read, unpack


@pytest.mark.parametrize("step", [4, 40])
def test_numbers_are_the_librarys(scene: Callable[..., Scene], step: int) -> None:
    there = scene(model=DIGITS, step=step, img="2")
    found = prisma.logit_lens(there.loaded.model, x := there.picture.x[None])
    facts, arrays = unpack(lens.view(there).pack())
    assert found.tokens is not None
    assert torch.equal(arrays["readout"].float(), found.readout[0])
    assert_near(arrays["tokens"], found.tokens[0].softmax(-1))
    assert torch.equal(arrays["top.class"][..., 0], found.tokens[0].argmax(-1).double())
    assert_near(arrays["top.probability"], found.tokens[0].softmax(-1).sort(descending=True).values[..., :5])
    assert facts["answer"] == there.loaded.model(x)[0].argmax() and facts["state"]["token"] == 0
    assert facts["stages"] == ["after the embedding", "after layer 0", "after layer 1"]


@pytest.mark.parametrize("token", [None, 0, 9])
def test_values_and_code_are_the_same(scene: Callable[..., Scene], token: int | None) -> None:
    there = scene(model=DIGITS, step=8, img="3", token=token)
    found = lens.values(there)
    assert found["axes"] == ["stage", "class"] and found["labels"] == there.subject.labels
    made: dict[str, Any] = {}
    exec(lens.code(there), made)
    assert_near(torch.tensor(found["values"], dtype=torch.float64), made["values"], 1e-5)
    logits = there.loaded.model(there.picture.x[None])[0]
    if token is None:
        assert_near(made["values"][-1].double(), logits, 1e-5)
    assert made["tokens"].shape == (3, 17, 10) and torch.allclose(made["tokens"].sum(-1), torch.ones(3, 17))


def test_a_class_that_is_asked_for(scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS, img="2")
    tokens = prisma.logit_lens(there.loaded.model, there.picture.x[None]).tokens
    assert tokens is not None
    assert_near(read(lens.view(there, 7), "column"), tokens[0].softmax(-1)[..., 7])
    with pytest.raises(PrismaError, match="expected a class from 0 to 9; found 10"):
        lens.view(there, 10)


def test_prompts_are_the_classes_of_a_clip(clip_library: Library) -> None:
    there = clip_library.scene(State.of({"prompts": "a red square\na blue circle"}))
    assert lens.values(there)["labels"] == ["a red square", "a blue circle"]
    assert read(lens.view(there), "readout").shape == (3, 2)


def test_a_model_with_1000_classes_is_a_small_download() -> None:
    torch.manual_seed(0)
    model = prisma.load(timm.create_model("vit_tiny_patch16_224").eval()).model
    found = prisma.logit_lens(model, torch.randn(1, 3, 224, 224))
    assert found.tokens is not None
    arrays = lens_arrays(found.readout[0], found.tokens[0])
    assert "tokens" not in arrays and sum(len(array.data) for array in arrays.values()) < 200_000
