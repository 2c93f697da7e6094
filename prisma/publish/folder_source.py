"""A repository of a folder hub as an audit reads it: every byte, and never through a link that leads outside."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from prisma.checkpoint import read_tensors
from prisma.errors import PrismaError, listed, quoted
from prisma.files import CLUTTER
from prisma.publish.commits import File, FileRecord, commit_id
from prisma.reading import open_file, read_bytes
from prisma.repository import Published, kind_and_repo, name_of, repositories_in

LONGEST_REF = 1000  # bytes of a file in refs
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass
class FolderSource:
    """One repository of a folder hub, or of the cache of the Hub's client."""

    mouse: Published
    is_local: bool = True
    _records: dict[str, FileRecord] = field(default_factory=dict, init=False)  # real path -> record; revisions share
    _listings: dict[str, tuple[dict[str, FileRecord], list[str]]] = field(default_factory=dict, init=False)
    _broken: dict[str, str] = field(default_factory=dict, init=False)  # what stands for a commit -> why there is none

    @property
    def repo(self) -> str:
        return self.mouse.repo

    @property
    def kind(self) -> str:
        return self.mouse.kind

    @property
    def _own(self) -> Path:
        return self.mouse.folder

    def labels(self) -> dict[str, str]:
        for folder in (self._own, *(self._own / name for name in ("refs", "snapshots", "blobs"))):
            if folder.is_symlink():
                raise PrismaError(
                    f"expected a folder at {folder}; found a link to {quoted(str(folder.readlink()))}, which is not "
                    "followed"
                )
        if not (self._own / "refs").is_dir():
            self.mouse.expect_labels()
        return {name: self._commit_of(name, path) for name, path in sorted(_files(self._own / "refs"))}

    def _commit_of(self, label: str, path: Path) -> str:
        try:
            self._expect_inside(path)
            return read_bytes(path, LONGEST_REF).decode(errors="replace")
        except PrismaError as error:
            no_commit = f"refs/{label}"
            self._broken[no_commit] = str(error).replace(f"{self._own}{os.sep}", "")
            return no_commit

    def listing(self, commit: str) -> Mapping[str, FileRecord]:
        return self._read(commit)[0]

    def problems(self, commit: str, *, ours: bool) -> list[str]:
        if commit in self._broken:
            return [self._broken[commit]]
        if not self.mouse.snapshot(commit).is_dir():
            return [f"expected a commit {commit}; found none"]
        files, problems = self._read(commit)
        found = commit_id({name: record.sha256 for name, record in files.items()})
        damaged = self._damaged(commit, files, ours=ours)
        if ours and found != commit:
            what = f"{listed(damaged, 3)} changed" if damaged else "its list of files changed"
            problems = [*problems, f"expected the files of commit {commit}; found those of {found}: {what}"]
        elif damaged and not ours:
            problems = [
                *problems,
                f"expected files whose hash is the name of their blob; found others: {listed(damaged)}",
            ]
        return problems

    def _damaged(self, commit: str, files: Mapping[str, FileRecord], *, ours: bool) -> list[str]:
        """The names of the files whose bytes differ from the hash that names their blob.

        A file of ours that is a copy is damaged if there is no blob of its bytes.
        """
        wrong, folder = [], self.mouse.snapshot(commit)
        for name, record in files.items():
            path = folder / name
            if path.is_symlink():
                blob = Path(os.path.realpath(path)).name
                is_whole = blob in (record.sha256, record.oid) or not (ours or _HASH.fullmatch(blob))
            else:
                is_whole = not ours or bool(record.sha256 and (self._own / "blobs" / record.sha256).is_file())
            wrong += [] if is_whole else [name]
        return sorted(wrong)

    def _read(self, commit: str) -> tuple[dict[str, FileRecord], list[str]]:
        """(the files of a commit, what is wrong with some of them)."""
        if commit not in self._listings:
            files, problems = dict[str, FileRecord](), list[str]()
            try:
                folder = self.mouse.snapshot(commit)
            except PrismaError:  # no name of a commit: `problems` says so
                return files, problems
            if folder.is_symlink():
                problems.append(f"expected a folder for commit {commit}; found a link: it is not followed")
            elif folder.is_dir():
                for name, path in _files(folder, hidden=True):
                    try:
                        self._expect_inside(path)
                        files[name] = self._record(name, path)
                    except PrismaError as error:
                        files[name] = FileRecord(name, "", 0, "")
                        problems.append(str(error).replace(f"{folder}{os.sep}", ""))
            self._listings[commit] = files, problems
        return self._listings[commit]

    def _record(self, name: str, path: Path) -> FileRecord:
        real = os.path.realpath(path)
        if real not in self._records:
            open_file(real).close()  # a pipe or a device is refused
            self._records[real] = File.of(name, Path(real)).record
        return replace(self._records[real], name=name)

    def _expect_inside(self, path: Path) -> None:
        """Raise PrismaError if a path leads outside the folder of this repository, or to a folder."""
        real, own = os.path.realpath(path), os.path.realpath(self._own)
        if not real.startswith(f"{own}{os.sep}"):
            raise PrismaError(
                f"expected files of the repository's own folder; found {path}, a link that leads outside, to "
                f"{quoted(str(path.readlink()) if path.is_symlink() else real)}: it is not followed"
            )

    def folder(self, commit: str, names: Iterable[str]) -> Path:
        files, folder = self.listing(commit), self.mouse.snapshot(commit)
        for name in names:
            if name not in files:
                raise PrismaError(f"expected a file {name}; found none")
            if not files[name].sha256:
                raise PrismaError(f"expected a file {name} that can be read; found none")
        return folder

    def header(self, commit: str, name: str) -> Mapping[str, str]:
        return read_tensors(self.folder(commit, [name]) / name)[1]

    def message(self, commit: str, name: str) -> str | None:
        return None

    def changed_by(self, commit: str, names: Iterable[str]) -> dict[str, str]:
        return {}

    def forget(self) -> None:
        """Nothing was downloaded."""


def _files(folder: Path, *, hidden: bool = False) -> Iterator[tuple[str, Path]]:
    """(name, path) of the files and links below a folder; links to folders are not followed."""
    for top, folders, files in os.walk(folder):
        if not hidden:
            folders[:] = [name for name in folders if name[0] != "."]
        links = [name for name in folders if (Path(top) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(top) / name
            if hidden or (name[0] != "." and name not in CLUTTER):
                yield path.relative_to(folder).as_posix(), path


def named_like(hub: Path, pattern: str) -> list[str]:
    """The repositories of a folder hub whose names begin as a pattern that ends in `*`."""
    kind, start = kind_and_repo(pattern.removesuffix("*"))
    return [name_of(kind, repo) for repo in repositories_in(hub, kind) if repo.startswith(start)]
