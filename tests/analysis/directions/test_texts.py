"""Named directions and the output in whose space they are."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prisma
from prisma import PrismaError
from prisma.analysis.directions.texts import Texts, answers, output_of, random_texts
from prisma.pretrained.zero_shot import PromptHead
from tests.variants import images_of, model_of


def clip_of(prompts: int = 4) -> prisma.ViT:
    """An image tower whose classes are prompts."""
    model = model_of("base", n_classes=prompts)
    torch.manual_seed(3)
    directions = F.normalize(torch.randn(prompts, 7).double(), dim=1)
    model.readout.head = PromptHead(nn.Linear(12, 7).double(), directions, 10.0, 0.5)
    return model.requires_grad_(False)


def test_classes_are_rows_of_the_head_and_prompts_are_their_directions() -> None:
    model, clip = model_of("base"), clip_of()
    texts = Texts.of(model, None)
    assert (texts.space, texts.own, texts.names[1]) == ("pooled", True, "class 1")
    torch.testing.assert_close(texts.directions, F.normalize(model.readout.head.weight, dim=1))  # type: ignore[arg-type]
    prompts = Texts.of(clip, None)
    assert prompts.space == "logits" and len(prompts.names) == 4
    torch.testing.assert_close(prompts.directions, clip.readout.head.directions)
    assert texts.labels("abcde") == "abcde" and texts.labels("abc") == texts.names
    given = Texts.of(model, torch.ones(2, 5), ["x", "y"])
    assert (given.space, given.own, given.labels("ab")) == ("logits", False, ("x", "y"))


@pytest.mark.parametrize("space", ["logits", "pooled"])
def test_the_output_is_that_of_the_model(space: str) -> None:
    for model in (model_of("base"), clip_of(), model_of("pool_class_mean")):
        images = images_of(model, 3)
        logits, acts = prisma.record(model, images, "pooled")
        found = output_of(model, acts["pooled"], space)
        assert torch.equal(answers(model, found, space), logits.argmax(1))
        if space == "pooled":
            assert torch.equal(found, acts["pooled"])
        elif not isinstance(model.readout.head, PromptHead):
            torch.testing.assert_close(found, logits)


def test_random_directions_have_unit_length_and_repeat_for_their_seed() -> None:
    texts = torch.ones(3, 5).double()
    found = [random_texts(texts, torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*found) and found[0].shape == (3, 5)
    torch.testing.assert_close(found[0].norm(dim=1), torch.ones(3).double())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"directions": None, "space": "logits"}, r"expected directions \[text, feature\], for a model whose logits"),
        ({"directions": torch.ones(2, 4)}, r"expected two directions or more \[text, 5\] of the model's logits"),
        ({"directions": torch.ones(1, 5)}, "expected two directions or more"),
        ({"directions": torch.zeros(2, 5)}, "expected two directions or more"),
        ({"directions": torch.ones(2, 5), "names": ["x"]}, "expected a name for each of 2 directions; found 1"),
        ({"directions": torch.ones(2, 5), "names": "xy"}, "expected names as a list of texts; found 'xy'"),
        ({"directions": torch.ones(2, 5), "names": [1, 2]}, r"expected names as a list of texts; found \[1, 2\]"),
        ({"directions": torch.ones(2, 5), "space": "final"}, "expected space to be logits or pooled; found 'final'"),
    ],
)
def test_what_are_no_directions_is_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        Texts.of(model_of("base"), **given)
