"""Ids are git's own."""

import subprocess
from pathlib import Path

import pytest

from tests.hubserver.objects import Commit, Entry, blob_id, folder_ids, pointer

FILES = {"a.txt": b"1\n", "a/b.txt": b"2\n", "a/c/d.txt": b"", "a.d/e": b"3", "b": b"4"}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_ids_of_files_and_folders_are_those_of_git(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    for path, data in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    git(tmp_path, "add", ".")
    entries = {path: Entry(blob_id(data), len(data), None, "") for path, data in FILES.items()}
    assert folder_ids(entries)[""] == git(tmp_path, "write-tree")
    assert folder_ids(entries)["a/c"] == git(tmp_path, "rev-parse", git(tmp_path, "write-tree") + ":a/c")
    assert folder_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}
    assert set(folder_ids(entries)) == {"", "a", "a/c", "a.d"}


def test_a_path_is_a_file_or_a_folder() -> None:
    entry = Entry(blob_id(b""), 0, None, "")
    with pytest.raises(ValueError, match="a is both a file and a folder"):
        folder_ids({"a": entry, "a/b": entry})


def test_a_commits_id_is_of_its_content_its_parent_and_its_message() -> None:
    files = {"a": Entry(blob_id(b"1"), 1, None, "")}
    made = Commit.made(None, "title", "", "me", "2026-01-01T00:00:00.000Z", files)
    assert made.id == Commit.made(None, "title", "", "me", "another day", files).id
    assert made.files["a"].last == made.id
    others = [
        Commit.made(None, "other", "", "me", "", files),
        Commit.made(made.id, "title", "", "me", "", files),
        Commit.made(None, "title", "", "me", "", {}),
    ]
    assert len({commit.id for commit in (made, *others)}) == 4
    assert Commit.from_json(made.as_json()) == made


def test_a_pointer_has_three_lines() -> None:
    assert pointer("ab" * 32, 7).decode().splitlines()[1:] == ["oid sha256:" + "ab" * 32, "size 7"]
