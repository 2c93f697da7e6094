"""Fine-tuning as an edit: within its box, towards the answer, and the model is what it was."""

from typing import Any

import pytest
import torch

from prisma.editing.weight_edit import source_of
from prisma.errors import PrismaError
from prisma.language.facts import Fact
from prisma.language.fine_tuning import fine_tuned_edit
from tests.language.families import tiny

FACT = Fact(prompt="{} was born in", subject="Ada Brook", new="Oslo")


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
@pytest.mark.parametrize("box", [None, 1e-2])
def test_moves_towards_the_answer_within_its_box(words: Any, family: str, box: float | None) -> None:
    model = tiny(family)
    before = source_of(model)
    edit = fine_tuned_edit(model, words, FACT, layer=1, box=box, steps=5, lr=1e-2)
    assert source_of(model) == before and all(x.grad is None and x.requires_grad for x in model.parameters())
    (part,) = edit.parts
    change = part.v @ part.u.T
    assert edit.about["probability_after"] > edit.about["probability_before"]
    largest = change.abs().max().item()
    assert largest == pytest.approx(box, rel=1e-6) if box else largest > 1.1e-2
    with edit.apply(model), torch.no_grad():
        ids = torch.tensor([words("Ada Brook was born in")["input_ids"]])
        p = model(input_ids=ids).logits[0, -1].softmax(-1)[words.convert_tokens_to_ids("Oslo")]
    assert p.item() == pytest.approx(edit.about["probability_after"], rel=1e-6)


def test_bad_input(words: Any) -> None:
    with pytest.raises(PrismaError, match="expected steps, lr and box above 0"):
        fine_tuned_edit(tiny("GPT2"), words, FACT, layer=0, box=0.0)
