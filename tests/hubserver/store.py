"""Repositories on disk: one folder each, which holds everything, so that a restart keeps it.

ROOT/models/OWNER/NAME/repository.json   what is said about it, and where its branches and tags point
ROOT/models/OWNER/NAME/commits/ID.json   a commit with its files
ROOT/models/OWNER/NAME/blobs/ID          a file
ROOT/models/OWNER/NAME/lfs/SHA256        a large file
"""

import json
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from tests.hubserver.objects import INITIAL_MESSAGE, Commit, Entry, blob_id, pointer

KINDS = ("models", "datasets", "spaces")
NAME = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(?<![.-])(?<!\.git)")
COMMIT = re.compile(r"[0-9a-f]{40}")
GITATTRIBUTES = Path(__file__).with_name("gitattributes.txt").read_bytes()  # of every new repository


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex}")
    unfinished.write_bytes(data)
    unfinished.replace(path)


class Repository:
    """One repository."""

    def __init__(self, folder: Path, kind: str, owner: str, name: str) -> None:
        self.folder, self.kind, self.owner, self.name = folder, kind, owner, name
        self.facts: dict[str, Any] = json.loads((folder / "repository.json").read_text())
        self._commits: dict[str, Commit] = {}

    @property
    def id(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def web(self) -> str:
        """Its path on the Hub's pages."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"

    @property
    def refs(self) -> dict[str, str]:
        """Full name of each branch, tag and pull request -> commit."""
        return self.facts["refs"]

    def save(self) -> None:
        put(self.folder / "repository.json", json.dumps(self.facts).encode())

    def commit(self, oid: str) -> Commit | None:
        if oid not in self._commits:
            path = self.folder / "commits" / f"{oid}.json"
            if not path.exists():
                return None
            self._commits[oid] = Commit.from_json(json.loads(path.read_text()))
        return self._commits[oid]

    def ref(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request."""
        names = (revision,) if revision.startswith("refs/") else (f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, a pull request, or a commit's own id."""
        ref = self.ref(revision)
        oid = self.refs[ref] if ref else revision
        return self.commit(oid) if COMMIT.fullmatch(oid) else None

    def add(self, ref: str, commit: Commit) -> None:
        """Keep a commit, and let the branch point to it."""
        put(self.folder / "commits" / f"{commit.id}.json", json.dumps(commit.as_json()).encode())
        self._commits[commit.id] = commit
        self.refs[ref] = commit.id
        self.save()

    def blob(self, oid: str) -> Path:
        return self.folder / "blobs" / oid

    def large(self, sha256: str) -> Path:
        return self.folder / "lfs" / sha256

    def content(self, entry: Entry) -> Path:
        return self.large(entry.sha256) if entry.sha256 else self.blob(entry.oid)

    def kept(self, data: bytes) -> Entry:
        """Store a file."""
        entry = Entry(blob_id(data), len(data), None, "")
        if not self.blob(entry.oid).exists():
            put(self.blob(entry.oid), data)
        return entry

    def kept_large(self, sha256: str) -> Entry | None:
        """A large file, if it has been uploaded."""
        path = self.large(sha256)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not path.exists():
            return None
        size = path.stat().st_size
        return Entry(blob_id(pointer(sha256, size)), size, sha256, "")


class Store:
    """All repositories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[tuple[str, str, str], Repository] = {}
        shutil.rmtree(self.uploads, ignore_errors=True)  # what an earlier server did not finish
        self.uploads.mkdir(parents=True)

    @property
    def uploads(self) -> Path:
        """For files on their way in."""
        return self.root / "uploads"

    def _folder(self, kind: str, owner: str, name: str) -> Path:
        return self.root / kind / owner / name

    def find(self, kind: str, owner: str, name: str) -> Repository | None:
        key = (kind, owner, name)
        if key not in self._open:
            if kind not in KINDS or not (NAME.fullmatch(owner) and NAME.fullmatch(name)):
                return None
            folder = self._folder(*key)
            if not (folder / "repository.json").exists():
                return None
            self._open[key] = Repository(folder, *key)
        return self._open[key]

    def create(self, kind: str, owner: str, name: str, author: str, date: str, facts: dict[str, Any]) -> Repository:
        """A repository with its first commit."""
        folder = self._folder(kind, owner, name)
        put(folder / "repository.json", json.dumps({"refs": {}, "created": date, **facts}).encode())
        repository = Repository(folder, kind, owner, name)
        first = {".gitattributes": repository.kept(GITATTRIBUTES)}
        repository.add("refs/heads/main", Commit.made(None, INITIAL_MESSAGE, "", author, date, first))
        self._open[kind, owner, name] = repository
        return repository

    def delete(self, repository: Repository) -> None:
        self._open.pop((repository.kind, repository.owner, repository.name))
        shutil.rmtree(repository.folder)

    def move(self, repository: Repository, owner: str, name: str) -> None:
        target = self._folder(repository.kind, owner, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._open.pop((repository.kind, repository.owner, repository.name))
        repository.folder.rename(target)

    def owned(self, kind: str, owner: str) -> list[Repository]:
        """All repositories of an owner."""
        folder = self.root / kind / owner
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return [found for name in names if (found := self.find(kind, owner, name))]
