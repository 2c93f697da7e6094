"""The forecast of a publication is what it then does, and making it writes nothing."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from prisma.errors import PrismaError
from prisma.publish import forecast, publish
from prisma.publish.calls import HOUR
from prisma.publish.commits import Hub as Place
from prisma.publish.folder_hub import FolderHub
from prisma.publish.forecasting import Forecast, foresee
from prisma.publish.plan import Plan
from prisma.publish.publishing import Report, send
from prisma.repository import Published
from prisma.run_folder import revision_of
from tests.hubserver.running import Hub
from tests.publish.small_plans import REPO, remote_hub, small_plan


def both(plan: Plan, folder: Path, *, replace: bool = False) -> tuple[Forecast, Report]:
    """What is foreseen, and then done."""
    looking, doing = remote_hub(folder), remote_hub(folder)
    with looking.calls.counting():
        foreseen = foresee(plan, looking, replace=replace)
    with doing.calls.counting():
        return foreseen, send(plan, doing, replace=replace, progress=False)


def expect_equal(foreseen: Forecast, report: Report) -> None:
    assert foreseen.changed == report.changed
    assert foreseen.revisions == (*report.made, *report.moved)
    assert (foreseen.removed, foreseen.bytes) == (report.removed, report.bytes)
    assert foreseen.requests == report.requests


@pytest.mark.parametrize("n", [1, 40])
def test_on_the_hub(n: int, server: Hub, tmp_path: Path) -> None:
    foreseen, report = both(small_plan(n), tmp_path)
    expect_equal(foreseen, report)
    assert foreseen.commits == n + 1 == len(server.asked("commit"))
    assert not foreseen.seen
    both(small_plan(n), tmp_path)
    again, report = both(small_plan(n), tmp_path)  # the manifest is in the cache now
    expect_equal(again, report)
    assert (again.changed, again.seen, again.bytes, again.commits, again.files) == (False, True, 0, 0, 0)


def test_what_is_there_is_not_counted(server: Hub, tmp_path: Path) -> None:
    server.fail("403", "create_branch", after=3)  # that of the third checkpoint
    with pytest.raises(PrismaError):
        send(small_plan(4), remote_hub(tmp_path), progress=False)
    there = remote_hub(tmp_path).labels()
    foreseen, _ = both(small_plan(4), tmp_path)
    assert foreseen.revisions == (*(revision_of(i) for i in range(4) if revision_of(i) not in there), "main")


def test_a_replacement(server: Hub, tmp_path: Path) -> None:
    send(small_plan(3), remote_hub(tmp_path / "old"), progress=False)
    with pytest.raises(PrismaError, match="found step-000002"):
        foresee(small_plan(2, seed=1), remote_hub(tmp_path))
    foreseen, report = both(small_plan(2, seed=1), tmp_path, replace=True)
    assert (foreseen.removed, foreseen.commits) == (report.removed, 4)
    assert set(foreseen.revisions) == set(report.moved)


def test_in_a_folder_hub(tmp_path: Path) -> None:
    def place() -> Place:
        return FolderHub(Published(REPO, tmp_path / "hub"))

    for _ in range(2):
        foreseen, report = foresee(small_plan(3), place()), send(small_plan(3), place(), progress=False)
        expect_equal(foreseen, report)
    assert not foreseen.changed


def test_the_limit_of_commits_per_hour_is_in_the_time(server: Hub, tmp_path: Path) -> None:
    hub = remote_hub(tmp_path, commits_per_hour=10)
    with hub.journal.writing():
        for _ in range(5):
            hub.journal.write("committed")
    seconds = foresee(small_plan(24), hub).seconds  # 5 + 25 commits
    assert 2 * HOUR < seconds < 2 * HOUR + 100


def test_it_writes_nothing_and_needs_no_token(server: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(run / "none"))
    before = sorted(run.rglob("*"))
    foreseen = forecast(run, REPO, progress=False)
    assert not foreseen.seen
    assert foreseen.commits == 6
    assert {row["method"] for row in server.requests} == {"GET"}
    assert not any(row["authorized"] for row in server.requests)
    assert sorted(run.rglob("*")) == before
    with pytest.raises(PrismaError, match=r"found no permission: run `hf auth login`, or set HF_TOKEN to a token"):
        publish(run, REPO, progress=False)
    monkeypatch.setenv("HF_TOKEN", server.token)
    report = publish(run, REPO, public=True, progress=False)
    assert (foreseen.bytes, foreseen.revisions) == (report.bytes, report.made)
    assert abs(foreseen.requests + 2 - report.requests) <= 1
    monkeypatch.delenv("HF_TOKEN")
    assert not forecast(run, REPO, progress=False).changed
    assert HfApi(token=False).model_info(REPO).private is False
