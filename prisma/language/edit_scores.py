"""How good an edit of facts is: does the model say the new object, also in other words, and leave other facts alone?

    success[efficacy]       p(new) > p(true) after the fact's own prompt
    success[paraphrase]     the same, in other words: mean over the paraphrases
    success[neighbourhood]  p(true) > p(new) for other subjects whose object is the true one: mean over them
    score                   harmonic mean of the three, each the mean over facts (S of ROME)

p is the likelihood of an object, the geometric mean over its tokens. `magnitude` has the differences of p instead.
`accuracy` is that of zsRE: the share of an answer's tokens that the model would say itself. Facts without a true
object, as those of zsRE, have no success: there, `effect` and `score` are of the accuracy (`measure` says of which).

Source: Meng et al. 2202.05262, CounterFact; Levy et al. 1706.04115, zsRE.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.result import Effect
from prisma.analysis.statistics import share_interval, standard_error
from prisma.editing.weight_edit import WeightEdit
from prisma.errors import PrismaError, quoted
from prisma.language.anatomy import Anatomy, anatomy, evaluating
from prisma.language.facts import Fact
from prisma.language.keys import Batch, continued
from prisma.language.prompts import answer_ids, token_ids
from prisma.language.text_scores import TfIdf, fluency

KINDS = ("efficacy", "paraphrase", "neighbourhood")
ROWS = 64  # in one pass
LEVEL = 0.95  # of the intervals


@dataclass(frozen=True, kw_only=True, eq=False)
class EditScores(Effect):
    """Scores of a model on facts, before or after an edit; NaN where a fact has no prompt of a kind.

    Facts about one subject are no independent evidence. So the errors and intervals are over subjects
    (`metadata["subjects"]` has that of each fact): the wider of a bootstrap and of the interval of Wilson with a trial
    for each subject, which has a width where all facts agree.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("kind",),
        "stderr": ("kind",),
        "success": ("fact", "kind"),
        "magnitude": ("fact", "kind"),
        "accuracy": ("fact", "kind"),
        "fluency": ("fact",),
        "consistency": ("fact",),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"success", "magnitude", "accuracy", "fluency", "consistency"})

    success: Tensor  # [fact, kind]: share of the prompts of each kind
    magnitude: Tensor  # [fact, kind]: mean difference of the two likelihoods
    accuracy: Tensor  # [fact, kind]: share of the answers' tokens
    fluency: Tensor  # [fact]: bits; NaN unless texts were generated
    consistency: Tensor  # [fact]: cosine with the references

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"kind": KINDS}

    @property
    def measure(self) -> str:
        """What `effect` and `score` are of: success, or accuracy where no fact has a true object to compare with."""
        return "accuracy" if self.success.isnan().all() else "success"

    @property
    def per_image(self) -> Tensor:
        return self.accuracy if self.measure == "accuracy" else self.success

    @property
    def effect(self) -> Tensor:
        """[kind]: mean over facts."""
        return self.per_image.nanmean(0)

    @property
    def stderr(self) -> Tensor:
        """[kind]: standard error of `effect` over subjects."""
        return standard_error(self.per_image, self.metadata["subjects"])

    @property
    def score(self) -> float:
        """S: the harmonic mean of the three kinds."""
        return float(_harmonic(self.effect))

    def interval(self, of: str = "effect", level: float = 0.95) -> Tensor:
        """[2, kind] of `"effect"`; of `"score"` [2], the harmonic means of the lower and of the upper ends.

        Raises:
            PrismaError: there is no such number, or a level other than .95.
        """
        if of not in ("effect", "score") or level != LEVEL:
            raise PrismaError(f"expected effect or score at the level {LEVEL}; found {quoted(of)} at {quoted(level)}")
        subjects = self.metadata["subjects"]
        there = [{subjects[i] for i in (~x.isnan()).nonzero()[:, 0].tolist()} for x in self.per_image.T]
        ends = share_interval(self.per_image, torch.tensor([len(some) for some in there]), groups=subjects)
        return ends if of == "effect" else torch.stack([_harmonic(end) for end in ends])

    def report(self, classes: Sequence[str] = ()) -> str:
        """The score and what it is of, with their intervals over subjects."""
        low, high = self.interval()
        parts = [
            f"{kind} {x:.2f} ({a:.2f} to {b:.2f})" for kind, x, a, b in zip(KINDS, self.effect, low, high, strict=True)
        ]
        named = "" if self.measure == "success" else f" of {self.measure}"
        return f"score{named} {self.score:.2f}: " + ", ".join(parts)


def edit_scores(
    model: nn.Module | Anatomy,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    generate: int = 0,
    seed: int = 0,
    corpus: Sequence[str] = (),
) -> EditScores:
    """How a model, as it is now, does on facts that should have been edited.

    Args:
        generate: tokens of each text that is generated from `fact.generation` (ROME: 100); 0: none.
        seed: of the generated texts.
        corpus: texts that say how rare a word is, for `consistency`. Without them, a fact's own references do, so that
            its consistency never depends on the facts that it is scored with.

    Raises:
        PrismaError: no facts.
    """
    if not facts:
        raise PrismaError("expected facts; found none")
    parts = anatomy(model)
    with evaluating(parts.model):
        rows = [_of_prompts(parts, tokenizer, fact) for fact in facts]
        known = TfIdf(corpus) if corpus else None
        texts = [_texts(parts, tokenizer, fact, generate, seed) for fact in facts]
    spoken = torch.tensor(
        [
            (
                _mean([fluency(text) for text in some]),
                (known or TfIdf(fact.references)).similarity(some, fact.references),
            )
            for fact, some in zip(facts, texts, strict=True)
        ],
        dtype=torch.float64,
    )
    success, magnitude, accuracy = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return EditScores(
        metadata={
            "analysis": "edit_scores", "facts": len(facts), "subjects": [fact.subject for fact in facts],
            "generate": generate, "seed": seed,
        },
        success=success, magnitude=magnitude, accuracy=accuracy, fluency=spoken[:, 0], consistency=spoken[:, 1],
    )  # fmt: skip


def scores_of_edits(
    model: nn.Module | Anatomy,
    tokenizer: Any,
    facts: Sequence[Fact],
    edit: Callable[[Fact], WeightEdit],
    **options: Any,
) -> EditScores:
    """How a method that edits one fact does on many, each edited alone and taken back.

    Args:
        edit: fact -> its edit, for example `lambda fact: rank_one_edit(model, tokenizer, fact, layer=0, texts=texts)`.
        options: those of `edit_scores`.
    """
    parts, found = anatomy(model), []
    for fact in facts:
        with edit(fact).apply(parts.model):
            found.append(edit_scores(parts, tokenizer, [fact], **options))
    if not found:
        raise PrismaError("expected facts; found none")
    names = ("success", "magnitude", "accuracy", "fluency", "consistency")
    arrays = {name: torch.cat([getattr(x, name) for x in found]) for name in names}
    about = {**found[0].metadata, "facts": len(facts), "subjects": [fact.subject for fact in facts]}
    return EditScores(metadata=about, **arrays)


@torch.no_grad()
def answer_likelihoods(
    parts: Anatomy, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Likelihood of each answer, the geometric mean over its tokens; the share of them that the model says itself."""
    asked = zip(prompts, answers, strict=True)
    rows = [(torch.tensor(token_ids(tokenizer, p)), answer_ids(tokenizer, p, a)) for p, a in asked]
    found = []
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        batch = Batch.of([torch.cat(row) for row in some], parts.device)
        logits = batch.logits(parts.model).double()
        for x, (prompt, answer) in zip(logits, some, strict=True):
            words = x[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
            wanted = answer.to(x.device)[:, None]
            likelihood = words.log_softmax(-1).gather(1, wanted).mean().exp()
            found.append((likelihood, (words.argmax(-1) == wanted[:, 0]).double().mean()))
    likelihoods, said = zip(*found, strict=True) if found else ((), ())
    return torch.tensor(likelihoods, dtype=torch.float64), torch.tensor(said, dtype=torch.float64)


def _of_prompts(parts: Anatomy, tokenizer: Any, fact: Fact) -> list[list[float]]:
    """[success, magnitude, accuracy], each by kind of prompt."""
    own = list(fact.neighbour_answers) or [fact.true] * len(fact.neighbours)
    groups = (
        ([fact.text], [fact.new]),
        (list(fact.paraphrases), [fact.new] * len(fact.paraphrases)),
        (list(fact.neighbours), own),
    )
    columns = []
    for (prompts, right), kind in zip(groups, KINDS, strict=True):
        known = bool(prompts) and all(right)
        p, said = answer_likelihoods(parts, tokenizer, prompts, right) if known else (torch.empty(0), torch.empty(0))
        wrong = fact.new if kind == "neighbourhood" else fact.true
        if known and wrong and not (kind == "neighbourhood" and fact.neighbour_answers):
            other, _ = answer_likelihoods(parts, tokenizer, prompts, [wrong] * len(prompts))
            columns.append((_mean((p > other).tolist()), _mean((p - other).tolist()), _mean(said.tolist())))
        else:
            columns.append((math.nan, math.nan, _mean(said.tolist())))
    return [list(row) for row in zip(*columns, strict=True)]


def _texts(parts: Anatomy, tokenizer: Any, fact: Fact, length: int, seed: int) -> list[str]:
    if not length:
        return []
    generator, texts = torch.Generator().manual_seed(seed), []
    for prompt in fact.generation:
        ids = torch.tensor([token_ids(tokenizer, prompt)], device=parts.device)
        texts.append(str(tokenizer.decode(continued(parts.model, ids, length, generator)[0], skip_special_tokens=True)))
    return texts


def _mean(values: Sequence[float]) -> float:
    there = [float(x) for x in values if not math.isnan(x)]
    return sum(there) / len(there) if there else math.nan


def _harmonic(x: Tensor) -> Tensor:
    return torch.where((x > 0).all(), len(x) / (1 / x).sum(), 0.0 * x.sum())
