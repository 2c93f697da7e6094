"""A file's record, and a commit's id."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from prisma.publish.commits import CHUNK, Commit, File, commit_id


@pytest.mark.parametrize("data", [b"", b"one\n", bytes(range(256)) * (CHUNK // 200)])
def test_a_record_has_both_hashes_of_the_bytes(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    git = subprocess.run(["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True)
    for source in (data, path):
        file = File.of("deep/name", source)
        assert (file.name, file.size) == ("deep/name", len(data))
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.record.oid == git.stdout.strip()
        assert b"".join(file.chunks()) == data


def test_the_files_of_a_commit_are_found_by_name() -> None:
    commit = Commit((File.of("a", b"1"), File.of("b", b"2")))
    assert commit.file("b").source == b"2"
    assert [record.name for record in commit.records] == ["a", "b"]
    assert commit.id == commit_id({"a": commit.files[0].sha256, "b": commit.files[1].sha256})
