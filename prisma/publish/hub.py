"""Writing a folder hub, so that a reader, or a kill at any moment, finds a commit complete or not at all.

A folder hub is a Hugging Face cache folder: `models--OWNER--NAME/{blobs,snapshots,refs}`. Blobs are named by SHA-256, a
snapshot is a folder of links to blobs (of copies, where the file system has no symbolic links), a label (a file in
refs) names a snapshot. Everything is made in a staging folder and renamed into place: blobs, then the snapshot, and,
once every file was read back through it, the label.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prisma.errors import PrismaError
from prisma.files import exclusive, sha256
from prisma.filesystem import link_or_copy, move, sync, sync_open, unwritable
from prisma.repository import Published

CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class File:
    """One file of a commit: its name in the repository, and the source of its bytes."""

    name: str
    source: bytes | Path
    sha256: str
    size: int  # bytes

    @classmethod
    def of(cls, name: str, source: bytes | Path) -> "File":
        if isinstance(source, bytes):
            return cls(name, source, hashlib.sha256(source).hexdigest(), len(source))
        return cls(name, source, sha256(source), source.stat().st_size)

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


@dataclass(frozen=True)
class Commit:
    """The files of a revision."""

    files: tuple[File, ...]

    @cached_property
    def id(self) -> str:
        return commit_id({file.name: file.sha256 for file in self.files})


def commit_id(hashes: Mapping[str, str]) -> str:
    """40 hex digits, a hash of the names and SHA-256 of a commit's files: equal files give an equal commit."""
    lines = "".join(f"{hashes[name]} {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class FolderHub:
    """The writing side of one repository in a folder hub."""

    mouse: Published

    @property
    def folder(self) -> Path:
        return self.mouse.folder

    @property
    def _staging(self) -> Path:
        return self.folder / ".partial"

    @contextmanager
    def writing(self) -> Iterator[Callable[[], None]]:
        """Let only this process publish in this repository, and leave nothing half-written.

        Yields:
            What checks, before each write, that it is still so: see `prisma.files.exclusive`.

        Raises:
            PrismaError: another process is publishing, or a file could not be written.
        """
        locks = self.folder.parent / ".locks" / self.folder.name  # the folder of the locks of the Hub's client
        try:
            locks.mkdir(parents=True, exist_ok=True)
            with exclusive(locks, f"publish {self.mouse.repo} in {self.mouse.hub}", "publish.lock") as expect_alone:
                try:
                    self._clear()  # what a killed process left behind
                    yield expect_alone
                finally:
                    self._clear()
        except OSError as error:
            raise unwritable(Path(error.filename or self.folder), error) from error

    def labels(self) -> dict[str, str]:
        """Label -> commit id."""
        return {name: self.mouse.commit_of(name) for name in self.mouse.revisions()}

    def read_back(self, commit: str) -> dict[str, str]:
        """Name -> SHA-256 of the file that a reader gets from a commit, every byte read; "" for a missing file."""
        snapshot = self.mouse.snapshot(commit)
        paths = [path for path in snapshot.rglob("*") if path.is_symlink() or not path.is_dir()]
        return {path.relative_to(snapshot).as_posix(): sha256(path) if path.is_file() else "" for path in paths}

    def damaged(self, commit: str) -> list[str]:
        """The names of the files of a commit whose bytes differ from the hash that names their blob.

        A file that is a copy is damaged if there is no blob of its bytes.
        """
        snapshot = self.mouse.snapshot(commit)

        def is_whole(name: str, found: str) -> bool:
            path = snapshot / name
            if path.is_symlink():
                return Path(os.path.realpath(path)).name == found
            return bool(found) and (self.folder / "blobs" / found).is_file()

        return sorted(name for name, found in self.read_back(commit).items() if not is_whole(name, found))

    def is_whole(self, commit: Commit) -> bool:
        """Whether a commit reads back, every byte, as it should be."""
        return self.read_back(commit.id) == {file.name: file.sha256 for file in commit.files}

    def add(self, commit: Commit) -> bool:
        """Make a commit readable, unless it is already; True if anything was written.

        Raises:
            PrismaError: what was written reads back as other bytes.
        """
        if self.is_whole(commit):
            return False
        for folder in ("blobs", "snapshots", "refs"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        sync(self.folder)
        for file in commit.files:
            blob = self._blob(file)
            if not blob.is_file() or sha256(blob) != file.sha256:
                self._place(file, blob)
        if not self.is_whole(commit):
            self._link(commit)
        if not self.is_whole(commit):
            raise PrismaError(f"expected commit {commit.id} to read back as it was written; found other bytes")
        return True

    def label(self, name: str, commit: str) -> None:
        """Let a label name a commit that `add` made."""
        self._place(File.of(name, commit.encode()), self.folder / "refs" / name)

    def unlabel(self, name: str) -> None:
        """Remove a label; its commit stays readable by id."""
        (self.folder / "refs" / name).unlink()
        sync(self.folder / "refs")

    def _blob(self, file: File) -> Path:
        return self.folder / "blobs" / file.sha256

    def _place(self, file: File, target: Path) -> None:
        self._staging.mkdir(exist_ok=True)
        partial = self._staging / "file"
        digest = hashlib.sha256()
        with partial.open("wb") as out:
            for chunk in file.chunks():
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            sync_open(out.fileno())
        if digest.hexdigest() != file.sha256:
            raise PrismaError(f"expected {file.source!s} to stay as it was during publishing; found it changed")
        move(partial, target)
        sync(target.parent)

    def _link(self, commit: Commit) -> None:
        """A snapshot folder of relative links, as the Hub's client makes them, or of copies."""
        snapshot, partial = self.mouse.snapshot(commit.id), self._staging / commit.id
        for file in commit.files:
            link = partial / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            up = os.path.relpath(self._blob(file), snapshot / Path(file.name).parent)
            link_or_copy(link, Path(up), self._blob(file))
        for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir() and not path.is_symlink())):
            sync(folder)
        if snapshot.exists():  # its files were damaged
            move(snapshot, self._staging / f"damaged-{commit.id}")
        move(partial, snapshot)
        sync(snapshot.parent)

    def _clear(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._staging)
