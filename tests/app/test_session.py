"""A session: where it opens, and what another image changes."""

from dataclasses import replace

from prisma_app.session import Session, opened


def test_new_images_bring_a_new_question_and_keep_the_rest(session: Session) -> None:
    before = replace(session, question=replace(session.question, metric="probability", into="clean"))
    after = before.with_images(before.subject.example(3), before.corrupt)
    assert (after.question.metric, after.question.into, after.index) == ("probability", "clean", 5)
    assert after.question.target == int(after.subject.final.model(after.picture.x[None]).argmax())


def test_a_mouse_opens_on_its_last_checkpoint_and_first_example(session: Session) -> None:
    fresh = opened(session.subject)
    assert (fresh.index, fresh.picture.example, fresh.tab) == (len(session.subject.steps) - 1, 0, "attention")
    assert fresh.corrupt.example != 0
    assert session.labels == list(session.subject.final.labels)


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
