"""A published mouse that a test may change as its owner could: in a folder hub, and on a Hub on this machine."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from safetensors.torch import save_file

from prisma.checkpoint import WEIGHTS, read_tensors
from prisma.publish import Finding, audit
from prisma.publish.commits import Commit, File
from prisma.publish.folder_hub import FolderHub
from prisma.publish.manifest import Manifest, message_with
from prisma.repository import MAIN, MANIFEST, Published
from tests.hubserver.objects import Entry
from tests.hubserver.running import Hub
from tests.hubserver.store import Repository

REPO = "lab/tiny"
Changes = Mapping[str, bytes | None]  # None: no such file


class Place(Protocol):
    def labels(self) -> dict[str, str]: ...
    def names(self, label: str) -> list[str]: ...
    def read(self, label: str, name: str) -> bytes: ...
    def serve(self, label: str, changes: Changes, message: str = "Update") -> None: ...
    def point(self, label: str, to: str) -> None: ...
    def remove(self, label: str) -> None: ...
    def audit(self, *, deep: bool = False) -> list[Finding]: ...


class InFolder:
    """In a folder hub."""

    def __init__(self, hub: Path) -> None:
        self.hub, self.mouse = hub, Published(REPO, hub)
        self.writer = FolderHub(self.mouse)

    def labels(self) -> dict[str, str]:
        return self.writer.labels()

    def names(self, label: str) -> list[str]:
        return list(self.writer.read_back(self.labels()[label]))

    def path(self, label: str, name: str) -> Path:
        return self.mouse.snapshot(self.labels()[label]) / name

    def read(self, label: str, name: str) -> bytes:
        return self.path(label, name).read_bytes()

    def serve(self, label: str, changes: Changes, message: str = "") -> None:
        files = {name: self.read(label, name) for name in self.names(label)} | dict(changes)
        made = Commit(tuple(File.of(name, data) for name, data in files.items() if data is not None))
        with self.writer.writing():
            self.writer.put(label, made, message)

    def point(self, label: str, to: str) -> None:
        path = self.mouse.folder / "refs" / label
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.labels().get(to, to))

    def remove(self, label: str) -> None:
        (self.mouse.folder / "refs" / label).unlink()

    def audit(self, *, deep: bool = False) -> list[Finding]:
        return audit(REPO, self.hub, deep)


class OnHub:
    """On a Hub, read from its disk, which is fast, and written by its client."""

    def __init__(self, hub: Hub) -> None:
        self.api: HfApi = hub.api
        self.folder = hub.root / "models" / REPO

    @property
    def _kept(self) -> Repository:
        return Repository(self.folder, "models", *REPO.split("/"))

    def labels(self) -> dict[str, str]:
        return {ref.removeprefix("refs/heads/"): commit for ref, commit in self._kept.refs.items()}

    def _files(self, label: str) -> dict[str, Entry]:
        commit = self._kept.find(label)
        assert commit is not None
        return {name: entry for name, entry in commit.files.items() if name != ".gitattributes"}

    def names(self, label: str) -> list[str]:
        return list(self._files(label))

    def read(self, label: str, name: str) -> bytes:
        return self._kept.content(self._files(label)[name]).read_bytes()

    def serve(self, label: str, changes: Changes, message: str = "Update") -> None:
        operations = [
            CommitOperationDelete(name) if data is None else CommitOperationAdd(name, data)
            for name, data in changes.items()
        ]
        self.api.create_commit(REPO, operations, commit_message=message, revision=label)

    def point(self, label: str, to: str) -> None:
        commit = self.labels().get(to, to)
        if label in self.labels():
            self.remove(label)
        self.api.create_branch(REPO, branch=label, revision=commit)

    def remove(self, label: str) -> None:
        self.api.delete_branch(REPO, branch=label)

    def audit(self, *, deep: bool = False) -> list[Finding]:
        return audit(REPO, deep=deep)


def values(place: Place, name: str) -> dict[str, Any]:
    """A JSON file of main."""
    found: dict[str, Any] = json.loads(place.read(MAIN, name))
    return found


def edit(place: Place, name: str, change: Callable[[dict[str, Any]], object], label: str = MAIN) -> None:
    """Change a JSON file."""
    content = json.loads(place.read(label, name))
    change(content)
    place.serve(label, {name: json.dumps(content, indent=2).encode()})


def edit_text(place: Place, name: str, old: str, new: str) -> None:
    """Change a text file of main."""
    text = place.read(MAIN, name).decode()
    assert old in text, text[:2000]
    place.serve(MAIN, {name: text.replace(old, new).encode()})


def state(place: Place, manifest: Manifest) -> None:
    """Put another manifest into main; on the Hub, the message of its commit states its hash."""
    file = File.of(MANIFEST, manifest.to_json())
    place.serve(MAIN, {MANIFEST: manifest.to_json()}, message_with("Fitted", file.sha256))


def fit(place: Place) -> None:
    """What a careful forger does: let the manifest state exactly what is served, and its commit the manifest's hash."""
    manifest, labels = Manifest.parse(place.read(MAIN, MANIFEST)), place.labels()
    rows = []
    for row in manifest.checkpoints:
        if row.revision in labels:
            files = {name: File.of(name, place.read(row.revision, name)).record for name in place.names(row.revision)}
            weights = files.get(WEIGHTS, File.of(WEIGHTS, b"").record)
            records = tuple(files[name] for name in files)
            row = replace(row, commit=labels[row.revision], files=records, sha256=weights.sha256, size=weights.size)
        rows.append(row)
    own = tuple(File.of(name, place.read(MAIN, name)).record for name in place.names(MAIN) if name != MANIFEST)
    state(place, replace(manifest, checkpoints=tuple(rows), files=own))


def weights(place: Place, label: str, *, shift: float = 0.0, **header: str) -> bytes:
    """The bytes of a revision's weights with another header, and with values moved by `shift`."""
    folder = Path(tempfile.mkdtemp())
    (folder / "weights").write_bytes(place.read(label, WEIGHTS))
    tensors, old = read_tensors(folder / "weights")
    save_file({name: x + shift for name, x in tensors.items()}, folder / "weights", metadata={**old, **header})
    data = (folder / "weights").read_bytes()
    shutil.rmtree(folder)
    return data


def found(findings: list[Finding], revision: str, words: str) -> bool:
    """Whether a problem of a revision has these words."""
    return any(finding.revision == revision and words in finding.problem for finding in findings)
