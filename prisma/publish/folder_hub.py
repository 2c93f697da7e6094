"""Writing a folder hub, so that a reader, or a kill at any moment, finds a commit complete or not at all.

A folder hub is a Hugging Face cache folder: `models--OWNER--NAME/{blobs,snapshots,refs}`. Blobs are named by SHA-256, a
snapshot is a folder of links to blobs (of copies, where the file system has no symbolic links), a label (a file in
refs) names a snapshot. Everything is made in a staging folder and renamed into place: blobs, then the snapshot, and,
once every file was read back through it, the label.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prisma.errors import PrismaError
from prisma.files import exclusive, sha256
from prisma.filesystem import link_or_copy, move, sync, sync_open, unwritable
from prisma.publish.commits import Commit, File
from prisma.repository import MAIN, Published


@dataclass
class FolderHub:
    """The writing side of one repository in a folder hub."""

    mouse: Published
    written: int = field(default=0, init=False)  # bytes
    _expect_alone: Callable[[], None] = field(default=lambda: None, init=False)  # see `prisma.files.exclusive`

    @property
    def repo(self) -> str:
        return self.mouse.repo

    @property
    def kind(self) -> str:
        return self.mouse.kind

    @property
    def place(self) -> str:
        return str(self.mouse.hub)

    @property
    def traffic(self) -> tuple[int, int]:
        return 0, self.written

    @property
    def folder(self) -> Path:
        return self.mouse.folder

    @property
    def _staging(self) -> Path:
        return self.folder / ".partial"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let only this process publish in this repository, and leave nothing half-written.

        Raises:
            PrismaError: another process is publishing, or a file could not be written.
        """
        locks = self.folder.parent / ".locks" / self.folder.name  # the folder of the locks of the Hub's client
        try:
            locks.mkdir(parents=True, exist_ok=True)
            with exclusive(locks, f"publish {self.mouse.repo} in {self.mouse.hub}", "publish.lock") as expect_alone:
                try:
                    self._expect_alone = expect_alone
                    self._clear()  # what a killed process left behind
                    yield
                finally:
                    self._clear()
        except OSError as error:
            raise unwritable(Path(error.filename or self.folder), error) from error

    def labels(self) -> dict[str, str]:
        """Label -> commit id."""
        return {name: self.mouse.commit_of(name) for name in self.mouse.revisions()}

    def served(self, label: str) -> str | None:
        """The commit that a label names; None if it is not there."""
        return self.labels().get(label)

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

    def differing(self, commit: str, wanted: Commit) -> list[str]:
        """The names of the files that a reader of a commit does not get as wanted, every byte read."""
        found, expected = self.read_back(commit), {file.name: file.sha256 for file in wanted.files}
        return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))

    def read(self, name: str) -> bytes | None:
        """The bytes of a file of `main`; None if it has none."""
        commit = self.labels().get(MAIN)
        path = self.mouse.snapshot(commit) / name if commit else None
        return path.read_bytes() if path and path.is_file() else None

    def prepare(self, commits: Sequence[Commit]) -> None:
        """Nothing: files are written one by one."""

    def put(self, label: str, commit: Commit, message: str) -> str:
        """Make a commit readable, read it back, and let the label name it.

        A folder hub keeps no message: a commit's id is a hash of its files already.

        Raises:
            PrismaError: what was written reads back as other bytes.
        """
        self._expect_alone()
        self._add(commit)
        self._expect_alone()
        if self.labels().get(label) != commit.id:
            self._place(File.of(label, commit.id.encode()), self.folder / "refs" / label)
        return commit.id

    def amend(self, files: tuple[File, ...], message: str, removed: Collection[str] = ()) -> str:
        """Commit `main` with some of its files replaced, added or removed, verified as by `put`; the commit's id."""
        folder = self.mouse.snapshot(self.labels()[MAIN])
        old = (path for path in folder.rglob("*") if path.is_file())
        kept = {name: File.of(name, path) for path in old if (name := path.relative_to(folder).as_posix())}
        stay = {name: file for name, file in kept.items() if name not in removed}
        return self.put(MAIN, Commit((*(stay | {file.name: file for file in files}).values(),)), message)

    def _add(self, commit: Commit) -> None:
        if not self.differing(commit.id, commit):
            return
        for folder in ("blobs", "snapshots", "refs"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        sync(self.folder)
        for file in commit.files:
            blob = self._blob(file)
            if not blob.is_file() or sha256(blob) != file.sha256:
                self._place(file, blob)
        if self.differing(commit.id, commit):
            self._link(commit)
        if self.differing(commit.id, commit):
            raise PrismaError(f"expected commit {commit.id} to read back as it was written; found other bytes")

    def rename(self, label: str, new: str) -> None:
        """Let a commit have another label. A call that was stopped is completed by the same call."""
        if (commit := self.labels().get(label)) is not None:
            self._expect_alone()
            self._place(File.of(new, commit.encode()), self.folder / "refs" / new)
            self.unlabel(label)

    def unlabel(self, label: str) -> None:
        """Remove a label; its commit stays readable by id."""
        self._expect_alone()
        (self.folder / "refs" / label).unlink()
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
        self.written += file.size

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
