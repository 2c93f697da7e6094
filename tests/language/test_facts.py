"""Files of facts are read in the form in which their authors publish them."""

import json
from pathlib import Path
from typing import Any

import pytest

from prisma.errors import PrismaError
from prisma.language.facts import Fact, read_counterfact, read_known, read_zsre

COUNTERFACT = {
    "case_id": 0,
    "pararel_idx": 2796,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Shayna does this and Yossel goes still and dies. Danielle Darrieux, a native"],
    "neighborhood_prompts": ["The mother tongue of Léon Blum is", "The native language of Montesquieu is"],
    "attribute_prompts": ["J.R.R. Tolkien is a native speaker of"],
    "generation_prompts": ["Danielle Darrieux's mother tongue is"],
}
ZSRE = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology"],
    "loc": "nq question: who played desmond doss father in hacksaw ridge",
    "loc_ans": "Hugo Weaving",
    "cond": "Trinity College >> University of Michigan || What university did Watts Humphrey attend?",
}
KNOWN = {
    "known_id": 0,
    "subject": "Vinson Massif",
    "attribute": "Antarctica",
    "template": "{} is located in the continent of",
    "prediction": " of Antarctica. It is the largest of the three",
    "prompt": "Vinson Massif is located in the continent of",
    "relation_id": "P30",
}


def written(path: Path, records: Any) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_counterfact(tmp_path: Path) -> None:
    file = written(tmp_path / "counterfact.json", [COUNTERFACT, COUNTERFACT])
    assert read_counterfact(file, limit=1) == [
        Fact(
            prompt="The mother tongue of {} is", subject="Danielle Darrieux", true="French", new="English",
            paraphrases=("Shayna does this and Yossel goes still and dies. Danielle Darrieux, a native",),
            neighbours=("The mother tongue of Léon Blum is", "The native language of Montesquieu is"),
            generation=("Danielle Darrieux's mother tongue is",),
        )
    ]  # fmt: skip
    assert len(read_counterfact(file)) == 2


def test_zsre(tmp_path: Path) -> None:
    (fact,) = read_zsre(written(tmp_path / "zsre.json", [ZSRE]))
    assert fact.text == ZSRE["src"] and fact.prompt == "What university did {} attend?"
    assert (fact.true, fact.new) == ("", "Illinois Institute of Technology")
    assert fact.neighbours == ("who played desmond doss father in hacksaw ridge?",)
    assert fact.neighbour_answers == ("Hugo Weaving",) and fact.paraphrases == (ZSRE["rephrase"],)


def test_known(tmp_path: Path) -> None:
    (fact,) = read_known(written(tmp_path / "known_1000.json", [KNOWN]))
    assert (fact.text, fact.true) == (KNOWN["prompt"], "Antarctica")


def test_another_form_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "facts.json", [KNOWN, {**KNOWN, "subject": 5}])
    with pytest.raises(PrismaError, match=r"expected record 1 of .* to be one of known facts; found another form"):
        read_known(file)
    with pytest.raises(
        PrismaError, match=r"expected record 0 of .* one of CounterFact; found none of 'requested_rewrite'"
    ):
        read_counterfact(file)
    for records in ({}, []):
        with pytest.raises(PrismaError, match="to be a list of zsRE records"):
            read_zsre(written(tmp_path / "other.json", records))
    with pytest.raises(PrismaError, match="no such file"):
        read_zsre(tmp_path / "none.json")
