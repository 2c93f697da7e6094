"""Making and updating a Space: one commit, no more than is needed, public only once it answers."""

from dataclasses import replace

import pytest

from prisma import PrismaError
from prisma.publish.space import Plan, Report, send, sending
from prisma.publish.space.planning import _listed
from tests.publish.space.fake_hub import FakeHub, refusal


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each time that the Space was asked, whether it was private then. That asking works is in `test_smoke.py`."""
    asked: list[bool] = []
    monkeypatch.setattr(sending, "expect_answers", lambda planned, where, timeout: asked.append(where.private))
    return asked


@pytest.fixture
def small(planned: Plan) -> Plan:
    return _listed(replace(planned, files={"app.py": b"print(1)", "w.safetensors": b"weights"}))


@pytest.mark.usefixtures("answered")
def test_one_commit_holds_all_files_and_deletes_stale_ones(fake: FakeHub, small: Plan) -> None:
    report = send(small)
    assert fake.files == {".gitattributes": b"", **small.files}
    assert [sorted(names) for names in fake.commits] == [["app.py", "space.json", "style.css", "w.safetensors"]]
    page, app = "https://hub.test/spaces/lab/explorer", "http://127.0.0.1:1"
    assert report == Report("lab/explorer", page, app, fake.head, True, "RUNNING", True)


@pytest.mark.usefixtures("answered")
def test_nothing_is_committed_when_nothing_changed(fake: FakeHub, small: Plan) -> None:
    first = send(small)
    second = send(small)
    assert (second.changed, second.commit, len(fake.commits)) == (False, first.commit, 1)
    changed = _listed(replace(small, files={**small.files, "app.py": b"print(2)"}))
    assert send(changed).changed
    assert sorted(fake.commits[-1]) == ["app.py", "space.json"]


@pytest.mark.parametrize(
    ("before", "asked_for", "after"),
    [
        (None, None, True),
        (None, False, False),
        (None, True, True),
        (False, None, False),
        (False, True, True),
        (True, None, True),
        (True, False, False),
    ],
)
def test_a_space_is_public_only_if_asked_and_once_it_answers(
    fake: FakeHub, small: Plan, answered: list[bool], before: bool | None, asked_for: bool | None, after: bool
) -> None:
    fake.private = before
    assert send(small, private=asked_for).private is after
    assert fake.private is after
    assert answered == [before is not False or asked_for is True]


def test_one_that_does_not_answer_stays_private(fake: FakeHub, small: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PrismaError("wrong numbers")

    monkeypatch.setattr(sending, "expect_answers", fail)
    with pytest.raises(PrismaError, match=r"wrong numbers"):
        send(small, private=False)
    assert fake.private is True


@pytest.mark.usefixtures("answered")
def test_hardware_is_asked_for_once(fake: FakeHub, small: Plan) -> None:
    send(replace(small, hardware="zero-a10g"))
    assert (fake.hardware, "request_space_hardware" in fake.calls) == ("zero-a10g", False)
    send(replace(small, hardware="cpu-upgrade"))
    assert (fake.hardware, fake.calls.count("request_space_hardware")) == ("cpu-upgrade", 1)


def test_a_free_account_is_told_what_works(fake: FakeHub, small: Plan) -> None:
    fake.refuses["create_repo"] = refusal(402, "Subscribe to PRO")
    with pytest.raises(PrismaError) as found:
        send(small)
    for words in ("free accounts cannot host a Gradio Space on cpu-basic", "--static", "--hardware zero-a10g", "PRO"):
        assert words in str(found.value)
    assert fake.commits == []


def test_a_commit_of_another_at_the_same_time_is_a_sentence(fake: FakeHub, small: Plan) -> None:
    fake.refuses["create_commit"] = refusal(412, "a commit has happened since")
    with pytest.raises(PrismaError, match=r"could not commit to lab/explorer .*412.*: another commit was made"):
        send(small)


def test_a_space_that_cannot_be_built_fails_with_its_stage(fake: FakeHub, small: Plan) -> None:
    fake.stages = ["BUILD_ERROR"]
    with pytest.raises(PrismaError, match=r"in the stage BUILD_ERROR: its log is at https://hub.test/spaces/lab/explo"):
        send(small)
