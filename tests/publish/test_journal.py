"""Every line is on disk before the next step, and what a kill leaves of a line is skipped."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.publish.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    times = iter(float(i) for i in range(100_000))
    made = Journal(tmp_path / "publishing" / "lab--tiny.jsonl", clock=lambda: next(times))
    with made.writing():
        return made


def test_lines_come_back_in_order(journal: Journal) -> None:
    journal.write("committed", branch="main", commit="a" * 40)
    journal.write("labelled", label="step-000001")
    assert journal.events() == [
        {"time": 0.0, "event": "committed", "branch": "main", "commit": "a" * 40},
        {"time": 1.0, "event": "labelled", "label": "step-000001"},
    ]
    assert journal.commits() == [0.0]


def test_each_line_is_synced(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    for _ in range(3):
        journal.write("committed")
    assert len(synced) == 3
    assert synced[-1] == journal.path.stat().st_size


@pytest.mark.parametrize("left", [b'{"time": 1, "ev', b"\xff\xfe", b"[]", b"null", b"{}\n\n"])
def test_what_a_kill_left_is_skipped(journal: Journal, left: bytes) -> None:
    journal.write("committed")
    with journal.path.open("ab") as file:
        file.write(left)
    journal.write("committed")
    assert [event for event in journal.events() if event] == [
        {"time": 0.0, "event": "committed"},
        {"time": 1.0, "event": "committed"},
    ]
    assert journal.commits() == [0.0, 1.0]


def test_what_a_commit_holds_is_known(journal: Journal) -> None:
    for commit, content in (("a", "x"), ("b", "y"), ("c", "x")):
        journal.write("committed", branch="checkpoints", commit=commit, content=content)
    journal.write("labelled", label="step-000001", commit="d")
    assert journal.made() == {"x": "c", "y": "b"}


def test_times_that_are_none_are_no_commits(journal: Journal) -> None:
    journal.path.write_text('{"event": "committed", "time": "now"}\n{"event": "committed"}\n')
    assert journal.commits() == []


def test_lines_of_many_threads_are_whole(journal: Journal) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: journal.write("labelled", label=f"step-{i}", pad="x" * 500), range(80)))
    assert sorted(event["label"] for event in journal.events()) == sorted(f"step-{i}" for i in range(80))


def test_it_is_named_after_run_and_repository(tmp_path: Path) -> None:
    assert Journal.of(tmp_path, "lab/tiny").path == tmp_path / "publishing" / "lab--tiny.jsonl"
    assert Journal.of(tmp_path, "lab/tiny").events() == []


def test_one_publisher_at_a_time(journal: Journal) -> None:
    other = Journal(journal.path)
    with journal.writing(), pytest.raises(PrismaError, match="only process to publish as lab--tiny"), other.writing():
        pass
    with other.writing():
        pass


def test_a_full_disk_is_one_sentence(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PrismaError, match=r"lab--tiny\.jsonl.*No space left on device"):
        journal.write("committed")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "publishing").write_text("mine")
    with pytest.raises(PrismaError, match="publishing"), Journal.of(tmp_path, "lab/tiny").writing():
        pass
