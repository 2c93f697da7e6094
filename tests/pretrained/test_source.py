"""The text side of a pair: unit vectors, and the similarity of its library."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.pretrained.source import Text, class_names
from tests.variants import tower_of

TOWER = tower_of("base")


def tokenize(prompts: object) -> Tensor:
    """A token for each letter a to e, then the largest id."""
    rows = [[*("abcde".index(letter) for letter in prompt), 8] for prompt in prompts]
    if any(len(row) > 5 for row in rows):
        raise PrismaError("expected a prompt of at most 4 letters")
    return torch.tensor([row + [0] * (5 - len(row)) for row in rows])


TEXT = Text(TOWER, tokenize, logit_scale=7.0, logit_bias=-2.0)


@torch.no_grad()
def test_prompts_become_unit_vectors() -> None:
    found = TEXT(["ab", "edc"])
    raw = TOWER(tokenize(["ab", "edc"]))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(found * raw.norm(dim=-1, keepdim=True), raw)


@torch.no_grad()
def test_one_prompt_is_a_list_of_one() -> None:
    assert torch.equal(TEXT("ab"), TEXT(["ab"]))


@torch.no_grad()
def test_similarity_is_the_scaled_cosine_and_the_bias() -> None:
    images = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, words = TEXT.similarity(images, ["a", "b"]), TEXT(["a", "b"])
    for i, j in ((0, 0), (2, 1)):
        cosine = float(images[i] @ words[j]) / math.sqrt(float(images[i] @ images[i]))
        assert float(found[i, j]) == pytest.approx(7 * cosine - 2)
    torch.testing.assert_close(TEXT.similarity(100 * images, ["a", "b"]), found)


@pytest.mark.parametrize("prompts", [[], (), None, 3, ["a", None], [3], b"a", {"a": 1}, iter(["a"])])
def test_what_is_no_prompt_is_refused(prompts: Any) -> None:
    with pytest.raises(PrismaError, match="expected a prompt or a list of prompts"):
        TEXT(prompts)


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(PrismaError, match="at most 4 letters"):
        TEXT(["abcde"])


def test_class_names_differ_and_none_is_none() -> None:
    found = class_names(["crane", None, "crane", 5, " ", True, ["x"], "crane"], 8)
    assert found == ("crane", "LABEL_1", "crane (2)", "5", "LABEL_4", "LABEL_5", "LABEL_6", "crane (7)")
    assert class_names(["a", "a (1)", "a"], 3) == ("a", "a (1)", "a (2)")
    assert len(set(class_names(["a", "a (2)", "a"], 3))) == 3
    assert class_names(["a"], 2) == ()
