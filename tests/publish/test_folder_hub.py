"""A commit is readable whole or not at all, by the Hub's own client."""

import fcntl
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from prisma.errors import PrismaError
from prisma.publish.commits import Commit, File, commit_id
from prisma.publish.folder_hub import FolderHub
from prisma.repository import Published

COMMIT = Commit((File.of("a.txt", b"one"), File.of("deep/b.txt", b"two"), File.of("deep/c.txt", b"one")))


@pytest.fixture
def writer(tmp_path: Path) -> FolderHub:
    return FolderHub(Published("lab/x", tmp_path / "hub"))


def test_a_commit_and_its_label_are_read_by_the_plain_client(writer: FolderHub, tmp_path: Path) -> None:
    with writer.writing():
        assert writer.put("step-000001", COMMIT, "") == COMMIT.id
    for revision in ("step-000001", COMMIT.id):
        path = hf_hub_download(
            "lab/x", "deep/b.txt", revision=revision, cache_dir=tmp_path / "hub", local_files_only=True
        )
        assert Path(path).read_bytes() == b"two"
    (repo,) = scan_cache_dir(tmp_path / "hub").repos
    assert repo.repo_id == "lab/x"
    assert {revision.commit_hash: revision.refs for revision in repo.revisions} == {COMMIT.id: {"step-000001"}}
    assert not scan_cache_dir(tmp_path / "hub").warnings


def test_equal_files_are_stored_once_and_nothing_else_is_left(writer: FolderHub) -> None:
    with writer.writing():
        writer.put("step-000001", COMMIT, "")
    assert len(list((writer.folder / "blobs").iterdir())) == 2
    assert {path.name for path in writer.folder.iterdir()} == {"blobs", "snapshots", "refs"}


def test_links_are_relative_so_that_a_hub_can_be_moved(writer: FolderHub, tmp_path: Path) -> None:
    with writer.writing():
        writer.put("step-000001", COMMIT, "")
    (tmp_path / "hub").rename(tmp_path / "moved")
    assert FolderHub(Published("lab/x", tmp_path / "moved")).read_back(COMMIT.id) == {
        f.name: f.sha256 for f in COMMIT.files
    }


def test_a_commit_id_follows_from_names_and_bytes_alone() -> None:
    assert len(COMMIT.id) == 40
    assert commit_id({"a": "1", "b": "2"}) == commit_id({"b": "2", "a": "1"})
    assert len({commit_id(files) for files in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"})}) == 4


@pytest.mark.parametrize("damage", ["change", "truncate", "remove blob", "remove link", "extra file"])
def test_a_damaged_commit_is_seen_and_made_whole(writer: FolderHub, damage: str) -> None:
    with writer.writing():
        writer.put("step-000001", COMMIT, "")
        assert not writer.differing(COMMIT.id, COMMIT)
    blob = writer.folder / "blobs" / COMMIT.files[0].sha256
    link = writer.mouse.snapshot(COMMIT.id) / "a.txt"
    {
        "change": lambda: blob.write_bytes(b"eno"),
        "truncate": lambda: blob.write_bytes(b"o"),
        "remove blob": blob.unlink,
        "remove link": link.unlink,
        "extra file": lambda: link.with_name("extra").write_bytes(b"!"),
    }[damage]()
    names = (
        ["a.txt", "deep/c.txt"]
        if damage not in ("remove link", "extra file")
        else ["a.txt" if damage[0] == "r" else "extra"]
    )
    assert writer.differing(COMMIT.id, COMMIT) == names
    assert bool(writer.damaged(COMMIT.id)) == (damage != "remove link")
    with writer.writing():
        writer.put("step-000001", COMMIT, "")
    assert not writer.differing(COMMIT.id, COMMIT)


def test_a_second_publisher_is_refused(writer: FolderHub) -> None:
    with writer.writing():
        pass
    lock = writer.folder.parent / ".locks" / writer.folder.name / "publish.lock"
    with lock.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PrismaError, match="only process to publish lab/x"), writer.writing():
            pass
    with writer.writing():
        pass


def test_a_source_that_changes_on_the_way_is_refused(writer: FolderHub, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"before")
    commit = Commit((File.of("weights", source),))
    source.write_bytes(b"after!")
    with pytest.raises(PrismaError, match="stay as it was"), writer.writing():
        writer.put("main", commit, "")
    assert not list((writer.folder / "blobs").iterdir())
    assert not (writer.folder / ".partial").exists()


def test_main_is_amended_file_by_file(writer: FolderHub) -> None:
    with writer.writing():
        old = writer.put("main", COMMIT, "")
        new = writer.amend((File.of("a.txt", b"new"), File.of("d.txt", b"four")), "")
    files = (File.of("a.txt", b"new"), *COMMIT.files[1:], File.of("d.txt", b"four"))
    assert not writer.differing(new, Commit(files))
    assert writer.labels() == {"main": new}
    assert writer.read("a.txt") == b"new"
    assert writer.read("none") is None
    assert not writer.differing(old, COMMIT)
    with writer.writing():
        last = writer.amend((File.of("e.txt", b"five"),), "", removed=("d.txt", "none", "e.txt"))
    assert not writer.differing(last, Commit((*files[:-1], File.of("e.txt", b"five"))))  # what is new stays
