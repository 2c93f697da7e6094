"""A session: its address, and the state of one tab."""

from dataclasses import replace

from prisma_app.session import Session


def test_the_address_of_a_session(session: Session) -> None:
    where = session.facts()["where"]
    assert where == {
        "model": session.subject.published.repo,
        "step": session.subject.steps[5],
        "image": 0,
        "view": "attention",
    }
    upload = replace(session, picture=replace(session.picture, example=-1))
    assert "image" not in upload.facts()["where"]


def test_the_state_of_one_tab_is_replaced_and_the_old_session_stays(session: Session) -> None:
    before = dict(session.states)
    after = session.with_state("lens", 3)
    assert (after.states, session.states) == ({**before, "lens": 3}, before)
    assert session.labels == list(session.subject.final.labels)
