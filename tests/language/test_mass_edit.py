"""Editing many facts: each layer writes its share of what is missing, and its formula is MEMIT's."""

from typing import Any

import pytest
import torch

from prisma.errors import PrismaError
from prisma.language.anatomy import anatomy
from prisma.language.facts import Fact
from prisma.language.keys import in_contexts, keys_at, streams_at
from prisma.language.mass_edit import mass_edit
from prisma.language.rank_one_edit import key_covariances
from tests.language.families import tiny

TEXTS = ["the city of Oslo is Rome", "Ben Cole was born in Oslo.", "who is Ada"]
FACTS = [
    Fact(prompt="{} was born in", subject="Ada Brook", new="Oslo"),
    Fact(prompt="{} was born in", subject="Ben Cole", new="Rome"),
]
CONTEXTS = ["{}", "the city of Oslo. {}"]


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_equals_the_formula_layer_by_layer(words: Any, family: str) -> None:
    model = tiny(family)
    parts = anatomy(model)
    old, ridge = 2.0, 1e-3
    edit = mass_edit(
        model, words, FACTS, layers=[0, 1], texts=TEXTS, contexts=CONTEXTS, old=old, ridge=ridge, steps=3, kl=0.0
    )
    assert [part.weight for part in edit.parts] == [f"{name}.weight" for name in parts.mlp_names[:2]]
    covariances = key_covariances(model, words, TEXTS, [0, 1])
    asked = [in_contexts(words, CONTEXTS, fact.prompt, fact.subject) for fact in FACTS]
    rows, lookup = [row for rows, _, _ in asked for row in rows], torch.cat([at for _, at, _ in asked])

    def mean(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (2, 2)).mean(1)

    def missing(part: Any, layer: int) -> torch.Tensor:
        """R of a layer [fact, d_model], from the change that it made: dW = R^T K S, S = (old C + K^T K)^-1."""
        C, K = covariances[layer].matrix, mean(keys_at(parts, [layer], rows, lookup)[layer])
        C = C + ridge * C.diagonal().mean() * torch.eye(len(C)).double()
        S = torch.linalg.inv(old * C + K.T @ K)
        R = torch.linalg.lstsq((K @ S).T, (part.v @ part.u.T).T).solution
        torch.testing.assert_close(R.T @ K @ S, part.v @ part.u.T, rtol=1e-6, atol=1e-9)
        return R

    first = missing(edit.parts[0], 0)
    before = mean(streams_at(parts, 1, rows, lookup))
    with type(edit)(edit.parts[:1]).apply(model):
        second = missing(edit.parts[1], 1)
        between = mean(streams_at(parts, 1, rows, lookup))
    torch.testing.assert_close(before + 2 * first, between + second, rtol=1e-5, atol=1e-7)  # both aim at one target


def test_bad_input(words: Any) -> None:
    model = tiny("GPT2")
    for facts, layers in (([], [0]), (FACTS, []), ([FACTS[0], FACTS[0]], [0])):
        with pytest.raises(PrismaError, match="expected layers, and facts of which each has a prompt of its own"):
            mass_edit(model, words, facts, layers=layers, texts=TEXTS)
    with pytest.raises(PrismaError, match="expected a covariance, or texts"):
        mass_edit(model, words, FACTS, layers=[0])
    with pytest.raises(PrismaError, match="expected a covariance, or texts"):
        mass_edit(model, words, FACTS, layers=[0, 1], covariances=key_covariances(model, words, TEXTS, [0]))
