"""The mouse knows its facts, and another is trained in a few seconds by the same recipe."""

from typing import Any

import torch
from torch import nn

from prisma.language.anatomy import anatomy
from prisma.language.edit_scores import answer_likelihoods
from prisma.language.mouse import KNOWN, RELATIONS, known_facts, objects, subjects, texts, train_mouse


def knows(model: nn.Module, tokenizer: Any, names: list[str]) -> float:
    """The share of facts that it says, in each of the three wordings."""
    asked = [(name, of, prompt) for (name, of) in objects() if name in names for prompt in RELATIONS[of][0]]
    prompts, answers = [p.format(name) for name, _, p in asked], [objects()[name, of] for name, of, _ in asked]
    with torch.no_grad():
        return answer_likelihoods(anatomy(model), tokenizer, prompts, answers)[1].mean().item()


def test_it_knows_every_fact_in_every_wording(loaded: tuple[nn.Module, Any]) -> None:
    assert knows(*loaded, subjects()[0]) == 1.0
    assert len(texts()) == KNOWN * 3 * 3 and sum(x.numel() for x in loaded[0].parameters()) < 400_000


def test_a_mouse_is_trained_in_seconds() -> None:
    state = torch.get_rng_state()
    model, tokenizer = train_mouse(steps=80, n_layers=4, d_model=32, known=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert knows(model, tokenizer, subjects()[0][:2]) > 0.9


def test_facts_have_what_an_edit_is_measured_by() -> None:
    facts, true = known_facts(), objects()
    assert len(facts) == KNOWN * len(RELATIONS) and facts == known_facts()
    for fact in facts:
        relation = next(of for of, (prompts, _) in RELATIONS.items() if fact.prompt in prompts)
        assert true[fact.subject, relation] == fact.true != fact.new and len(fact.paraphrases) == 2
        assert all(
            true[text.replace(fact.prompt.replace("{}", "").strip(), "").strip(), relation] == fact.true
            for text in fact.neighbours
        )
    known, strangers = subjects()
    assert len(known) == KNOWN and not set(known) & set(strangers)
    for part in (0, 1):  # no name alone says the object
        assert all(len({n for n in known if n.split()[part] == word}) > 1 for word in {n.split()[part] for n in known})
