"""The files of a revision, and what a place to publish must be able to do with them.

`FolderHub` and `HuggingFaceHub` are such places; publishing, watching and yanking know only this interface.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class FileRecord:
    """A file of a revision as a manifest states it: by both hashes by which a Hub names files."""

    name: str
    sha256: str
    size: int  # bytes
    oid: str  # the id that git gives these bytes


@dataclass(frozen=True)
class File:
    """One file of a commit, and the source of its bytes."""

    source: bytes | Path
    record: FileRecord

    @classmethod
    def of(cls, name: str, source: bytes | Path) -> "File":
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        # git hashes a header with the size before the bytes; its id is no protection against forgery, SHA-256 is.
        plain, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        for chunk in _chunks(source):
            plain.update(chunk)
            git.update(chunk)
        return cls(source, FileRecord(name, plain.hexdigest(), size, git.hexdigest()))

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def sha256(self) -> str:
        return self.record.sha256

    @property
    def size(self) -> int:
        return self.record.size

    def chunks(self) -> Iterator[bytes]:
        return _chunks(self.source)


def _chunks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


@dataclass(frozen=True)
class Commit:
    """The files of a revision."""

    files: tuple[File, ...]

    @cached_property
    def id(self) -> str:
        """A hash of the files' names and bytes; in a folder hub it is the commit's id."""
        return commit_id({file.name: file.sha256 for file in self.files})

    def file(self, name: str) -> File:
        return next(file for file in self.files if file.name == name)

    @property
    def records(self) -> tuple[FileRecord, ...]:
        return tuple(file.record for file in self.files)


def commit_id(hashes: Mapping[str, str]) -> str:
    """40 hex digits, a hash of the names and SHA-256 of a commit's files: equal files give an equal commit."""
    lines = "".join(f"{hashes[name]} {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


class Hub(Protocol):
    """One repository, in a folder hub or on the Hugging Face Hub, to which revisions are published."""

    @property
    def repo(self) -> str:
        """OWNER/NAME."""

    @property
    def kind(self) -> str:
        """Of the repository, as the Hub's client calls it: "model" or "dataset"."""

    @property
    def place(self) -> str:
        """Where it is, for messages: the folder, or the address of the Hub."""

    @property
    def traffic(self) -> tuple[int, int]:
        """How many requests were made and how many bytes were sent or written so far."""

    def writing(self) -> AbstractContextManager[None]:
        """Let only this process publish in this repository. Raises PrismaError if another one does."""

    def labels(self) -> dict[str, str]:
        """Label -> commit id; empty if nothing is published."""

    def served(self, label: str) -> str | None:
        """The commit that a label names, as far as is known without asking again; None if it is not there.

        What others did meanwhile is noticed by `put`, at the latest.
        """

    def differing(self, commit: str, wanted: Commit) -> list[str]:
        """The names of the files that a reader of a commit does not get as wanted: other bytes, absent, or extra."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file of `main`; None if it has none."""

    def prepare(self, commits: Sequence[Commit]) -> None:
        """These commits will be put next, in this order: files of many may be sent at once. Nothing else changes."""

    def put(self, label: str, commit: Commit, message: str) -> str:
        """Commit the files, verify them, then let the label name the commit, and return the commit's id.

        What is there already is not written again, so a call that was stopped is completed by the same call. The label
        may be made a little later: `labels`, putting `main` and the end of `writing` wait for it.

        Raises:
            PrismaError: it could not be written, or what is there afterwards is something else.
        """

    def amend(self, files: tuple[File, ...], message: str, removed: Collection[str] = ()) -> str:
        """Commit `main` with some of its files replaced, added or removed, verified as by `put`; the commit's id."""

    def rename(self, label: str, new: str) -> None:
        """Let a commit have another label. A call that was stopped is completed by the same call."""

    def unlabel(self, label: str) -> None:
        """Remove a label; its commit stays readable by id."""
