"""Scores by hand, and what edits of the mouse reach: one fact at a time by ROME, many by MEMIT, beside fine-tuning."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from prisma.editing.rank_one import Covariance
from prisma.errors import PrismaError
from prisma.language.anatomy import anatomy
from prisma.language.edit_scores import KINDS, EditScores, answer_likelihoods, edit_scores, scores_of_edits
from prisma.language.facts import Fact
from prisma.language.fine_tuning import fine_tuned_edit
from prisma.language.mass_edit import mass_edit
from prisma.language.mouse import known_facts, texts
from prisma.language.rank_one_edit import key_covariances, rank_one_edit
from tests.language.families import tiny

EFFICACY, PARAPHRASE, NEIGHBOURHOOD = range(len(KINDS))
FACTS = known_facts()[5::22]  # each relation, and none of those on which the settings of the edits were chosen
LAYER = 0
CONTEXTS = ["{}", *(f"{text} {{}}" for text in texts()[:100:50])]
Speaking = tuple[nn.Module, Any]


@pytest.fixture(scope="module")
def covariances(loaded: Speaking) -> dict[int, Covariance]:
    return key_covariances(*loaded, texts(), [0, 1])


def test_before_an_edit(loaded: Speaking) -> None:
    found = edit_scores(*loaded, FACTS)
    assert found.effect.tolist() == [0, 0, 1] and found.score == 0
    assert found.accuracy[:, NEIGHBOURHOOD].mean() > 0.9 and found.fluency.isnan().all()


def test_rank_one_edits_reach_all_three(loaded: Speaking, covariances: dict[int, Covariance]) -> None:
    def edit(fact: Fact) -> Any:
        return rank_one_edit(
            *loaded, fact, layer=LAYER, covariance=covariances[LAYER], contexts=CONTEXTS, lr=0.2, decay=0.1
        )

    found = scores_of_edits(*loaded, FACTS, edit, generate=8)
    low = found.interval()[0]
    assert found.effect[EFFICACY] == 1
    assert found.effect[PARAPHRASE] > 0.9 and found.effect[NEIGHBOURHOOD] > 0.95
    assert low[PARAPHRASE] > 0.6 and low[NEIGHBOURHOOD] > 0.6  # of seven subjects, also where all agree
    assert found.score > 0.9 and f"score {found.score:.2f}: efficacy 1.00" in found.report()
    assert found.fluency.mean() > 1.5 and (found.consistency > 0).any()
    assert found.metadata["subjects"] == [fact.subject for fact in FACTS]
    assert 0 < float(found.interval("score")[0]) < found.score == pytest.approx(float(found.interval("score")[1]))
    assert edit_scores(*loaded, FACTS[:2]).effect[EFFICACY] == 0  # all are taken back


def test_a_mass_edit_changes_many_at_once(loaded: Speaking, covariances: dict[int, Covariance]) -> None:
    edit = mass_edit(
        *loaded,
        FACTS,
        layers=[0, 1],
        covariances=covariances,
        contexts=CONTEXTS,
        old=1.0,
        clamp=4.0,
        lr=0.2,
        steps=15,
    )
    with edit.apply(loaded[0]):
        found = edit_scores(*loaded, FACTS)
    assert found.effect[EFFICACY] > 0.8 and found.effect[NEIGHBOURHOOD] > 0.8


def test_fine_tuning_for_comparison(loaded: Speaking) -> None:
    def scores(box: float | None) -> EditScores:
        return scores_of_edits(
            *loaded, FACTS[:4], lambda fact: fine_tuned_edit(*loaded, fact, layer=LAYER, box=box, lr=5e-3)
        )

    free, boxed = scores(None), scores(2e-2)
    assert free.effect[EFFICACY] == 1
    assert free.effect[NEIGHBOURHOOD] < 0.6  # it changes the neighbours too
    assert boxed.effect[NEIGHBOURHOOD] > free.effect[NEIGHBOURHOOD]
    assert boxed.effect[PARAPHRASE] < 0.8  # within a box, the words alone


def test_likelihoods_are_geometric_means_over_tokens(words: Any) -> None:
    model = tiny("Llama")
    p, said = answer_likelihoods(anatomy(model), words, ["Ada was born in", "who is"], ["Rome city", "Ada"])
    rome, city, ada = words.convert_tokens_to_ids(["Rome", "city", "Ada"])
    with torch.no_grad():
        logits = [
            model(input_ids=torch.tensor([words(text)["input_ids"]])).logits[0]
            for text in ("Ada was born in Rome city", "who is Ada")
        ]
    first, second = (x.softmax(-1) for x in logits)
    assert p[0].item() == pytest.approx((first[4, rome] * first[5, city]).sqrt().item())
    assert p[1].item() == pytest.approx(second[2, ada].item())
    assert said[1].item() == (logits[1][2].argmax() == ada)
    fact = Fact(prompt="{} was born in", subject="Ada", new="Rome", true="Oslo", neighbours=["Ben was born in"])
    scores = edit_scores(model, words, [fact])
    pair, _ = answer_likelihoods(anatomy(model), words, ["Ada was born in"] * 2, ["Rome", "Oslo"])
    assert scores.success[0, EFFICACY] == (pair[0] > pair[1])
    assert scores.magnitude[0, EFFICACY].item() == pytest.approx((pair[0] - pair[1]).item())
    assert math.isnan(scores.success[0, PARAPHRASE])
    asked = Fact(prompt="{} was", subject="Ada", new="Rome", neighbours=["who is"], neighbour_answers=["Ada"])
    zsre = edit_scores(model, words, [asked])  # without a true object there is no success, but accuracy
    assert zsre.success.isnan().all() and zsre.accuracy[0, NEIGHBOURHOOD] == said[1]
    assert zsre.measure == "accuracy" and zsre.effect[NEIGHBOURHOOD] == said[1]
    assert zsre.report().startswith("score of accuracy ") and "paraphrase nan" in zsre.report()  # it has none
    with pytest.raises(PrismaError, match="expected facts"):
        edit_scores(model, words, [])


def scored(success: list[list[float]], subjects: list[str]) -> EditScores:
    rows = torch.tensor(success, dtype=torch.float64)
    nothing = torch.full((len(rows),), torch.nan)
    return EditScores(
        metadata={"subjects": subjects},
        success=rows,
        magnitude=rows,
        accuracy=rows,
        fluency=nothing,
        consistency=nothing,
    )


def test_intervals_have_a_width_and_count_subjects_not_facts() -> None:
    same = scored([[1.0, 1.0, 0.0]] * 12, ["a", "b", "c", "d"] * 3)
    low, high = same.interval()
    assert low.tolist() == pytest.approx([0.5101, 0.5101, 0.0], abs=1e-4)  # Wilson, 4 of 4
    assert high.tolist() == pytest.approx([1.0, 1.0, 0.4899], abs=1e-4)
    alone = scored([[1.0, 1.0, 0.0]] * 12, list("abcdefghijkl"))
    assert (alone.interval()[0, :2] > low[:2]).all()
    halves = [[1.0, 1.0, 1.0]] * 6 + [[0.0, 1.0, 1.0]] * 6
    clustered, free = scored(halves, ["a"] * 6 + ["b"] * 6), scored(halves, list("abcdefghijkl"))
    assert clustered.stderr[0].item() == pytest.approx(0.5) and clustered.interval()[:, 0].tolist() == [0, 1]
    assert free.stderr[0].item() == pytest.approx((0.25 / 11) ** 0.5)
    assert free.interval()[:, 0].tolist() == pytest.approx([0.25, 0.75], abs=0.06)
    with pytest.raises(PrismaError, match=r"expected effect or score at the level 0\.95; found 'total'"):
        same.interval("total")


def test_consistency_does_not_depend_on_the_other_facts(words: Any) -> None:
    model = tiny("Llama")
    facts = [
        Fact(prompt="{} was", subject=name, new="Rome", true="Oslo", generation=[name], references=[text])
        for name, text in (("Ada", "Ada was born in Rome"), ("Ben", "the city of Cole is Oslo"))
    ]
    both = edit_scores(model, words, facts, generate=6).consistency
    assert torch.equal(both, torch.cat([edit_scores(model, words, [x], generate=6).consistency for x in facts]))
    rare = edit_scores(model, words, facts, generate=6, corpus=["the Ada city", "the Ben city"]).consistency
    assert not both.isnan().any() and not torch.equal(rare, both)
