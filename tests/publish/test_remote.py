"""What the Hub says about a repository."""

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, utils

from prisma.errors import PrismaError
from prisma.publish.calls import Calls
from prisma.publish.commits import Commit, File, FileRecord
from prisma.publish.remote import Remote, is_same, sending
from tests.hubserver.running import Hub

REPO = "lab/tiny"
FILES = (File.of("a.txt", b"one"), File.of("deep/w.safetensors", bytes(3000)))


@pytest.fixture
def remote(server: Hub) -> Remote:
    api = HfApi()
    api.create_repo(REPO)
    api.create_commit(REPO, [CommitOperationAdd(file.name, file.source) for file in FILES], commit_message="x")  # type: ignore[arg-type]
    return Remote(REPO, Calls(sleep=lambda _: None))


def test_files_are_compared_by_the_hash_that_the_hub_has(remote: Remote) -> None:
    head = remote.branches()["main"]
    small, large = remote.listing(head)["a.txt"], remote.listing(head)["deep/w.safetensors"]
    assert (small.oid, small.sha256) == (FILES[0].record.oid, "")
    assert (large.oid, large.sha256) == ("", FILES[1].sha256)
    assert remote.differing(head, Commit(FILES)) == []
    other = File.of("a.txt", b"two")
    assert remote.differing(head, Commit((other, File.of("b.txt", b"")))) == ["a.txt", "b.txt", "deep/w.safetensors"]
    assert remote.absent(head, Commit((other, FILES[1]))) == [other]


def test_a_size_or_a_hash_that_differs_is_another_file() -> None:
    wanted = FILES[0].record
    assert is_same(FileRecord("a.txt", "", wanted.size, wanted.oid), wanted)
    assert is_same(FileRecord("a.txt", wanted.sha256, wanted.size, ""), wanted)
    assert not is_same(FileRecord("a.txt", "", wanted.size + 1, wanted.oid), wanted)
    assert not is_same(FileRecord("a.txt", "", wanted.size, ""), wanted)
    assert not is_same(None, wanted)


def test_what_was_asked_for_is_remembered(remote: Remote, server: Hub) -> None:
    server.forget()
    for _ in range(3):
        remote.listing(remote.branches()["main"])
    assert [row["route"] for row in server.requests] == ["refs", "tree"]
    remote.branches(fresh=True)
    assert len(server.asked("refs")) == 2


def test_a_repository_that_is_not_there_has_no_branches(server: Hub) -> None:
    remote = Remote("lab/none")
    assert remote.branches() == {}
    assert remote.is_hidden


def test_the_first_commit_and_bytes(remote: Remote) -> None:
    first, head = remote.first_commit(), remote.branches()["main"]
    assert remote.listing(first) == {}
    assert remote.read("a.txt", head) == b"one"
    assert remote.read("a.txt", first) is None


def test_a_name_that_the_hub_would_refuse() -> None:
    with pytest.raises(PrismaError, match="expected OWNER/NAME"):
        Remote("tiny")


def test_what_the_client_does_otherwise_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = utils.are_progress_bars_disabled()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with sending():
        assert utils.are_progress_bars_disabled() and constants.HF_HUB_DISABLE_XET
    assert utils.are_progress_bars_disabled() == before
    assert not constants.HF_HUB_DISABLE_XET
