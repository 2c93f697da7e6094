"""Facts: what a language model is asked, what it should answer, and the prompts by which an edit is measured.

Files of CounterFact (`counterfact.json`, `multi_counterfact.json`), of the 1,000 known facts of causal tracing
(`known_1000.json`), and of zsRE (`zsre_mend_eval.json`), as their authors publish them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prisma.bounds import JSON
from prisma.errors import PrismaError, quoted
from prisma.filesystem import given
from prisma.language.prompts import filled
from prisma.reading import parse_json, read_text

LARGEST = 32 * JSON  # bytes: CounterFact has 45 MB


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A fact "subject relation object", and the prompts that say whether an edit of it is one of the fact.

    Attributes:
        prompt: the relation, with `{}` in the place of the subject: "{} was born in".
        true: the object that the model should know, if there is one.
        new: the object that an edit should put in its place.
        paraphrases: whole prompts with the same subject and relation in other words.
        neighbours: whole prompts whose right answer is `true`, of other subjects; an edit should leave them alone.
        neighbour_answers: for each neighbour its own answer, where it is another one than `true` (zsRE).
        generation: beginnings of texts about the subject.
        references: texts about subjects that have the new object, with which generated texts are compared.
    """

    prompt: str
    subject: str
    true: str = ""
    new: str = ""
    paraphrases: Sequence[str] = ()
    neighbours: Sequence[str] = ()
    neighbour_answers: Sequence[str] = ()
    generation: Sequence[str] = ()
    references: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The prompt with the subject in it."""
        return filled(self.prompt, self.subject)


def read_counterfact(path: str | Path, limit: int | None = None) -> list[Fact]:
    """The facts of a CounterFact file.

    Raises:
        PrismaError: no such file, or a record has another form (its number is named).
    """
    return _read(path, _counterfact, "CounterFact", limit)


def read_zsre(path: str | Path, limit: int | None = None) -> list[Fact]:
    """The facts of zsRE in the form of MEND and ROME: the new answer is the first of `answers`.

    The one neighbour is a question of Natural Questions with its own answer.

    Raises:
        PrismaError: as `read_counterfact`.
    """
    return _read(path, _zsre, "zsRE", limit)


def read_known(path: str | Path, limit: int | None = None) -> list[Fact]:
    """The facts of a file like `known_1000.json`, for causal tracing.

    Raises:
        PrismaError: as `read_counterfact`.
    """
    return _read(path, _known, "known facts", limit)


def _read(path: str | Path, read: Callable[[Mapping[str, Any]], Fact], what: str, limit: int | None) -> list[Fact]:
    path = given(path)
    records = parse_json(read_text(path, LARGEST), path)
    if not isinstance(records, list) or not records:
        raise PrismaError(f"expected {path} to be a list of {what} records; found {type(records).__name__}")
    facts = []
    for number, record in enumerate(records[:limit]):
        try:
            facts.append(read(record))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise PrismaError(
                f"expected record {number} of {path} to be one of {what}; found none of {quoted(error.args[0])}"
                if isinstance(error, KeyError)
                else f"expected record {number} of {path} to be one of {what}; found another form"
            ) from None
    return facts


def _counterfact(record: Mapping[str, Any]) -> Fact:
    rewrite = record["requested_rewrite"]
    return Fact(
        prompt=_text(rewrite["prompt"]), subject=_text(rewrite["subject"]), true=_text(rewrite["target_true"]["str"]),
        new=_text(rewrite["target_new"]["str"]), paraphrases=_texts(record["paraphrase_prompts"]),
        neighbours=_texts(record["neighborhood_prompts"]), generation=_texts(record.get("generation_prompts", ())),
    )  # fmt: skip


def _zsre(record: Mapping[str, Any]) -> Fact:
    subject, question = _text(record["subject"]), _text(record["src"])
    return Fact(
        prompt=question.replace(subject, "{}"), subject=subject, new=_text(record["answers"][0]),
        paraphrases=(_text(record["rephrase"]),),
        neighbours=(f"{_text(record['loc']).removeprefix('nq question: ')}?",),
        neighbour_answers=(_text(record["loc_ans"]),),
    )  # fmt: skip


def _known(record: Mapping[str, Any]) -> Fact:
    return Fact(prompt=_text(record["template"]), subject=_text(record["subject"]), true=_text(record["attribute"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, list(values)))
