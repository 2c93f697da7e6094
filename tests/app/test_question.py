"""Questions: sensible by default, and only those that the page offers."""

from typing import Any

import pytest

from prisma_app.tabs.patching import METRICS, Question, asked, default_question, metric_of, sites
from prisma_app.session import Session
from prisma import LogitDiff, PrismaError, Probability


def test_the_default_question_is_about_the_final_answers(session: Session) -> None:
    mouse, final = session.subject, session.subject.final.model
    asked_now = default_question(mouse, session.picture, session.corrupt)
    assert asked_now.target == int(final(session.picture.x[None]).argmax())
    assert asked_now.against != asked_now.target
    same = default_question(mouse, session.picture, session.picture)
    assert same.against == int(final(session.picture.x[None])[0].argsort(descending=True)[1])


def test_what_the_patching_controls_offer(session: Session) -> None:
    offered = sites(session.subject)
    assert ("mlp_out" in offered) == (session.subject.final.config.d_mlp > 0)
    assert asked(session.subject, METRICS[1], 1, 2, offered[-1], "clean") == Question(
        METRICS[1], 1, 2, offered[-1], "clean"
    )
    assert metric_of(Question(METRICS[0], 1, 2, "resid_pre", "clean"), session.labels)[0] == LogitDiff(1, 2)
    assert metric_of(Question(METRICS[1], 1, 2, "resid_pre", "clean"), session.labels)[0] == Probability(1)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, "accuracy"), (0, None), (1, 99), (1, True), (1, "1"), (2, -1), (2, [1]), (3, "attn.z"), (3, 0), (4, "both")],
)
def test_what_they_do_not_offer(session: Session, place: int, value: Any) -> None:
    values: list[Any] = [METRICS[0], 1, 2, "resid_pre", "clean"]
    values[place] = value
    with pytest.raises(PrismaError, match=r"expected a (metric|class|site|direction) among"):
        asked(session.subject, *values)


def test_one_class_twice_is_no_logit_difference(session: Session) -> None:
    with pytest.raises(PrismaError, match="found the same twice"):
        asked(session.subject, METRICS[0], 1, 1, "resid_pre", "clean")
    assert asked(session.subject, METRICS[1], 1, 1, "resid_pre", "clean").target == 1
