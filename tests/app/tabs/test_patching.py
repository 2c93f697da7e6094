"""The Patching tab: its state and controls, and views that are the library's sweeps."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from prisma_app.changes import with_model, with_picture
from prisma_app.models import Mouse
from prisma_app.session import Session
from prisma_app.tabs import patching
from prisma_app.tabs.patching import DIRECTIONS, METRICS, TAB, Question, asked, default_question, metric_of, sites

from prisma import LogitDiff, PrismaError, Probability, sweep
from prisma.metrics import NAMED
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import read


def asking(session: Session, **values: Any) -> Session:
    return session.with_state("patching", replace(session.states["patching"], **values))


@pytest.mark.parametrize("into", DIRECTIONS.values())
@pytest.mark.parametrize("metric", METRICS)
def test_effects_are_the_sweeps(session: Session, into: str, metric: str) -> None:
    session = asking(session, metric=metric, target=1, against=2, site="attn_out", into=into)
    view, model = TAB.view(session), session.loaded.model
    measure = LogitDiff(1, 2) if metric == "logit_diff" else Probability(1)
    clean, corrupt = session.picture.x[None], session.states["patching"].corrupt.x[None]
    heads = sweep(model, clean, corrupt, "attn.z", measure, into=into)
    tokens = sweep(model, clean, corrupt, "attn_out", measure, into=into, axis="token")
    assert torch.equal(read(view, "heads").float(), heads)
    assert torch.equal(read(view, "tokens").float(), tokens)
    assert (view.facts["clean"], view.facts["corrupt"]) == (
        measure(model(clean)).item(),
        measure(model(corrupt)).item(),
    )
    middle = (view.facts["low"] + view.facts["high"]) / 2
    assert middle == pytest.approx(view.facts[into])
    assert view.facts["low"] <= min(heads.min(), tokens.min())
    assert view.facts["high"] >= max(heads.max(), tokens.max())


def test_rounding_gets_no_colour(session: Session) -> None:
    view = TAB.view(asking(session, corrupt=session.picture))  # no cell differs from the run without a patch
    assert view.facts["high"] - view.facts["low"] == pytest.approx(2 * patching.MIN_REACH)


def test_a_model_too_large_to_patch_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    config = session.loaded.config
    runs = config.n_layers * (config.n_heads + config.n_tokens)
    monkeypatch.setattr(patching, "MAX_COST", 1e6)
    with pytest.raises(PrismaError, match=f"takes {runs} runs of .* prisma.sweep"):
        TAB.view(session)


def test_facts_are_json(session: Session) -> None:
    facts = json.loads(json.dumps(TAB.view(session).facts))
    assert facts["where"]["model"] == session.subject.published.repo


def test_the_default_question_is_about_the_final_answers(session: Session) -> None:
    mouse, final = session.subject, session.subject.final.model
    question = session.states["patching"]
    assert question == default_question(mouse, session.picture, question.corrupt)
    assert question.target == int(final(session.picture.x[None]).argmax())
    assert question.against != question.target
    same = default_question(mouse, session.picture, session.picture)
    assert same.against == int(final(session.picture.x[None])[0].argsort(descending=True)[1])


def test_a_new_image_changes_the_classes_and_keeps_the_rest(session: Session) -> None:
    before = asking(session, metric="probability", into="clean")
    after = with_picture(before, before.subject.example(3)).states["patching"]
    assert (after.metric, after.into, after.corrupt) == ("probability", "clean", before.states["patching"].corrupt)
    assert after.target == int(session.subject.final.model(session.subject.example(3).x[None]).argmax())


def test_the_pair_of_images_differs(session: Session) -> None:
    corrupt = session.states["patching"].corrupt
    after = with_picture(session, corrupt)
    assert after.picture.example == corrupt.example
    assert after.states["patching"].corrupt.example != corrupt.example


def test_another_model_has_its_own_corrupt_image(lab: Path) -> None:
    before = asking(with_model(Mouse(Published(DIGITS, lab))), metric="probability", site="mlp_out")
    glyphs = Mouse(Published(GLYPHS, lab))  # it has no MLP
    after = with_model(glyphs, before).states["patching"]
    assert (after.metric, after.site) == ("probability", "resid_pre")
    assert after.corrupt is glyphs.other_example(glyphs.example(0))


def test_every_metric_of_the_page_is_a_named_metric() -> None:
    assert set(METRICS) <= set(NAMED)


def test_what_the_controls_offer(session: Session) -> None:
    offered, corrupt = sites(session.subject), session.states["patching"].corrupt
    assert ("mlp_out" in offered) == (session.subject.final.config.d_mlp > 0)
    question = asked(session, "probability", 1, 2, offered[-1], "clean")
    assert question == Question(corrupt, "probability", 1, 2, offered[-1], "clean")
    assert metric_of(question, session.labels) == (Probability(1), f"probability ({session.labels[1]})")
    assert metric_of(replace(question, metric="logit_diff"), session.labels)[0] == LogitDiff(1, 2)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, "accuracy"), (0, None), (1, 99), (1, True), (1, "1"), (2, -1), (2, [1]), (3, "attn.z"), (3, 0), (4, "both")],
)
def test_what_they_do_not_offer(session: Session, place: int, value: Any) -> None:
    values: list[Any] = ["logit_diff", 1, 2, "resid_pre", "clean"]
    values[place] = value
    with pytest.raises(PrismaError, match=r"expected a (metric|class|site|direction) among"):
        asked(session, *values)


def test_one_class_twice_is_no_logit_difference(session: Session) -> None:
    with pytest.raises(PrismaError, match="found the same class twice"):
        asked(session, "logit_diff", 1, 1, "resid_pre", "clean")
    assert asked(session, "probability", 1, 1, "resid_pre", "clean").target == 1


@pytest.mark.usefixtures("closed_loops")
def test_the_controls_change_the_state(session: Session) -> None:
    with gr.Blocks():
        controls = TAB.lay_out()
    choose, *others = TAB.events(controls)
    assert choose.inputs == [controls["corrupt"]]
    assert choose.change(session, {"index": 5}).corrupt is session.subject.example(5)
    with pytest.raises(PrismaError, match="differs from the clean image"):
        choose.change(session, {"index": session.picture.example})
    assert len(others) == 5
    for event in others:
        assert [control.label for control in event.inputs] == [
            "Metric",
            "Class",
            "minus class",
            "Tokens of",
            "Direction",
        ]
        assert event.change(session, "probability", 1, 2, "resid_mid", "clean").site == "resid_mid"


@pytest.mark.usefixtures("closed_loops")
def test_only_what_differs_is_sent(session: Session) -> None:
    with gr.Blocks():
        controls = TAB.lay_out()
    assert set(TAB.updates(controls, None, session)) == set(controls.values())
    assert TAB.updates(controls, session, replace(session, index=1)) == {}
    other = asking(session, corrupt=session.subject.example(7))
    assert set(TAB.updates(controls, session, other)) == {controls["corrupt"]}
    changed = TAB.updates(controls, session, asking(session, metric="probability"))
    assert set(changed) == set(controls.values()) - {controls["corrupt"]}
    assert changed[controls["against"]]["visible"] is False
