"""An edited language model in a folder: what the edit does, against losses by hand, and what is read again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prisma.editing.weight_edit import LowRank, WeightEdit
from prisma.errors import PrismaError
from prisma.language.anatomy import anatomy
from prisma.language.edit_scores import answer_likelihoods
from prisma.language.loading import load
from prisma.language.mouse import known_facts, texts
from prisma.language.rewriting import facts_of_edit, measure_rewrite, read_rewrite, text_losses, write_rewritten

FACT = known_facts()[0]
WEIGHT = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def mouse() -> tuple[Any, Any]:
    return load("mice/facts")


def edit_of(model: nn.Module, **about: Any) -> WeightEdit:
    generator = torch.Generator().manual_seed(0)
    u, v = (0.3 * torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in (192, 64))
    stated = {"method": "by hand", "prompt": FACT.prompt, "subject": FACT.subject, "new": FACT.new}
    return WeightEdit((LowRank.of(model, WEIGHT, u, v),), {**stated, **about})


def test_the_loss_of_a_text_is_that_of_its_tokens(mouse: tuple[Any, Any]) -> None:
    model, tokenizer = mouse
    some = [texts()[0], " ".join(texts()[1:4])]
    found = text_losses(anatomy(model), tokenizer, some)
    for text, loss in zip(some, found, strict=True):  # which come by length
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0]
        assert loss.item() == pytest.approx(F.cross_entropy(logits[:-1].double(), ids[0, 1:]).item(), abs=1e-6)
    assert len(text_losses(anatomy(model), tokenizer, [])) == 0


def test_measures_are_those_of_the_model_before_and_with_the_edit(mouse: tuple[Any, Any]) -> None:
    model, tokenizer = mouse
    edit, some = edit_of(model), texts()[:20]
    weight = model.get_submodule(WEIGHT).weight.clone()
    found = measure_rewrite(model, tokenizer, edit, some)
    assert torch.equal(model.get_submodule(WEIGHT).weight, weight), "the model stays as it is"
    for i, one in enumerate((model, edit.edited(model))):
        p, said = answer_likelihoods(anatomy(one), tokenizer, [FACT.text], [FACT.new])
        assert found.facts[0].likelihood[i] == pytest.approx(float(p)) and found.facts[0].said[i] == float(said)
        losses = text_losses(anatomy(one), tokenizer, some)
        assert found.texts is not None and found.texts.loss[i] == pytest.approx(float(losses.mean()))
    assert found.texts is not None and found.texts.texts == 20
    change = found.texts.loss[1] - found.texts.loss[0]
    assert change > 0 and found.texts.interval[0] < change < found.texts.interval[1]
    assert measure_rewrite(model, tokenizer, edit).texts is None


def test_a_folder_has_the_edited_model_and_its_edit(mouse: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = mouse
    edit = edit_of(model)
    measures = measure_rewrite(model, tokenizer, edit, texts()[:5])
    write_rewritten(tmp_path / "edited", model, tokenizer, edit, measures)
    there, own = load(tmp_path / "edited")
    wanted = edit.edited(model)
    assert torch.equal(there.get_submodule(WEIGHT).weight, wanted.get_submodule(WEIGHT).weight)  # type: ignore[arg-type]
    assert own("Ada Frost")["input_ids"] == tokenizer("Ada Frost")["input_ids"]
    again, stated = read_rewrite(tmp_path / "edited")
    assert torch.equal(again.parts[0].u, edit.parts[0].u) and stated == json.loads(json.dumps(measures.to_dict()))
    with pytest.raises(PrismaError, match="expected a new or empty folder"):
        write_rewritten(tmp_path / "edited", model, tokenizer, edit, measures)
    other = {**stated, "facts": [{**stated["facts"][0], "new": "drums"}]}
    for wrong in (other, {**stated, "facts": "none"}, {}):
        (tmp_path / "edited" / "measures.json").write_text(json.dumps(wrong))
        with pytest.raises(PrismaError, match=r"expected measures of the facts of the edit in .*; found others"):
            read_rewrite(tmp_path / "edited")


def test_the_facts_of_one_and_of_many() -> None:
    assert facts_of_edit({"prompt": "{} is", "subject": "A", "new": "b"}) == [("{} is", "A", "b")]
    assert facts_of_edit({"facts": [["{} is", "A", "b"], ["{} was", "C", "d"]]})[1] == ("{} was", "C", "d")
    for about in ({}, {"method": "rank-one", "from": {"class": 1}}, {"facts": [["A", "b"]]}, {"facts": [3]}):
        with pytest.raises(PrismaError, match="expected an edit of facts of a language model; found another edit"):
            facts_of_edit(about)
