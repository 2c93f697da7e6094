"""An edit puts the new value at the key, is least, fits any layout of weights, and is refused where it does not fit."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from prisma.editing.rank_one import Covariance
from prisma.editing.value import optimal_value
from prisma.errors import PrismaError
from prisma.language.anatomy import anatomy
from prisma.language.facts import Fact
from prisma.language.fine_tuning import fine_tuned_edit
from prisma.language.keys import in_contexts, keys_at
from prisma.language.mouse import known_facts, texts
from prisma.language.objective import AnswerLoss
from prisma.language.rank_one_edit import key_covariance, key_covariances, rank_one_edit
from tests.language.families import tiny

TEXTS = ["the city of Oslo is Rome", "Ben Cole was born in Oslo.", "who is Ada", "the Ada Brook was a city in Rome"]
CONTEXTS = ["{}", "the city of Oslo. {}"]
FACT = Fact(prompt="{} was born in", subject="Ada Brook", true="Rome", new="Oslo")


@pytest.mark.parametrize("family", ["GPT2", "Llama", "Bloom", "OPT", "Falcon", "Phi", "Gemma2", "GPTJ"])
def test_the_edited_map_gives_the_new_value_to_the_key(words: Any, family: str) -> None:
    model = tiny(family)
    parts = anatomy(model)
    edit = rank_one_edit(model, words, FACT, layer=1, texts=TEXTS, contexts=CONTEXTS, steps=4)
    rows, lookup, _ = in_contexts(words, CONTEXTS, FACT.prompt, FACT.subject)
    key = keys_at(parts, [1], rows, lookup)[1].mean(0)
    old = parts.mlp_out[1](key[None, None])[0, 0]
    (part,) = edit.parts
    assert (
        part.u.shape == (parts.d_mlp, 1) and part.v.shape == (16, 1) and part.weight == f"{parts.mlp_names[1]}.weight"
    )
    with edit.apply(model):
        new = parts.mlp_out[1](key[None, None])[0, 0]
        torch.testing.assert_close(new - old, part.v[:, 0] * (part.u[:, 0] @ key))
        assert (new - old).norm() > 1e-3
    torch.testing.assert_close(parts.mlp_out[1](key[None, None])[0, 0], old, rtol=0, atol=0)
    assert edit.about["contexts"] == 2 and 0 < edit.about["probability_before"] < 1


def test_the_probability_after_is_that_of_the_edited_model(words: Any) -> None:
    model = tiny("Mistral")
    edit = rank_one_edit(model, words, FACT, layer=0, texts=TEXTS, contexts=CONTEXTS, steps=3, ridge=10.0)
    (oslo,) = words.convert_tokens_to_ids(["Oslo"])
    with edit.apply(model), torch.no_grad():
        rows = [words(context.format("Ada Brook was born in"))["input_ids"] for context in CONTEXTS]
        p = [model(input_ids=torch.tensor([row])).logits[0, -1].softmax(-1)[oslo].item() for row in rows]
    assert edit.about["probability_after"] == pytest.approx(sum(p) / 2, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_value_is_searched_in_float32_in_a_model_of_half_precision(loaded: Any, dtype: torch.dtype) -> None:
    model, tokenizer = loaded
    fact, half = known_facts()[0], copy.deepcopy(model).to(dtype)
    options: dict[str, Any] = {
        "layer": 0,
        "texts": texts()[:100],
        "contexts": ["{}"],
        "lr": 0.2,
        "steps": 12,
        "decay": 0.1,
    }
    exact, found = (rank_one_edit(x, tokenizer, fact, **options) for x in (model, half))
    a, b = (x.parts[0].v @ x.parts[0].u.T for x in (exact, found))
    assert (a - b).norm() < 0.2 * a.norm()  # keys of half precision
    assert found.about["probability_after"] > 0.8
    loss = AnswerLoss(anatomy(half), tokenizer, anatomy(half).mlp_out[0], fact.prompt, fact.subject, fact.new, ["{}"])
    assert optimal_value(loss.start, loss, steps=1).change.dtype == torch.float32
    tuned = fine_tuned_edit(half, tokenizer, fact, layer=0, lr=5e-3, steps=10)
    assert tuned.about["probability_after"] > 0.5


def test_the_covariance_is_that_of_all_tokens(words: Any) -> None:
    model = tiny("Mistral")
    found = key_covariances(model, words, TEXTS, [0, 2])
    linear, keys = anatomy(model).mlp_out[2], []
    handle = linear.register_forward_pre_hook(lambda module, args: keys.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        for text in TEXTS:
            model(input_ids=torch.tensor([words(text)["input_ids"]]))
    handle.remove()
    rows = torch.cat(keys)
    assert found[2].n == len(rows) == sum(len(words(text)["input_ids"]) for text in TEXTS)
    torch.testing.assert_close(found[2].matrix, rows.T @ rows / len(rows))
    torch.testing.assert_close(key_covariance(model, words, TEXTS, 2).matrix, found[2].matrix)


def test_what_does_not_fit_is_refused(words: Any) -> None:
    model = tiny("Llama")
    covariance = key_covariance(model, words, TEXTS, 1)

    def edit(of: nn.Module = model, fact: Fact = FACT, layer: int = 1, **options: Any) -> Any:
        return rank_one_edit(of, words, fact, layer=layer, contexts=CONTEXTS, steps=1, **options)

    with pytest.raises(PrismaError, match="expected a covariance of this model, whose weights have the hash"):
        edit(tiny("Llama", seed=1), covariance=covariance)
    with pytest.raises(PrismaError, match="expected a covariance of keys of 64 numbers; found one of 24"):
        edit(tiny("GPT2"), covariance=covariance)
    with pytest.raises(
        PrismaError, match=r"expected a covariance of inputs of model.layers.2.* found one of inputs of"
    ):
        edit(layer=2, covariance=covariance)
    with pytest.raises(PrismaError, match="found neither or both"):
        edit()
    with pytest.raises(PrismaError, match="found neither or both"):
        edit(covariance=covariance, texts=TEXTS)
    with pytest.raises(PrismaError, match="expected a layer from 0 to 2; found 3"):
        edit(layer=3, texts=TEXTS)
    with pytest.raises(PrismaError, match="expected a fact with a new answer"):
        edit(fact=Fact(prompt="{} was", subject="Ada", true="Rome", new=" Rome"), texts=TEXTS)
    with pytest.raises(PrismaError, match="expected the subject"):
        edit(fact=Fact(prompt="the city is", subject="Ada", new="Rome"), texts=TEXTS)
    with pytest.raises(PrismaError, match="expected texts"):
        key_covariance(model, words, [], 1)
    assert isinstance(covariance, Covariance)
