"""Audit a published mouse: does every label serve the weights that it states? It reads every byte."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from prisma.checkpoint import WEIGHTS, read_checkpoint, weights_hash
from prisma.errors import PrismaError, by_number, listed, shown
from prisma.filesystem import given, sentences
from prisma.publish.commits import commit_id
from prisma.publish.folder_hub import FolderHub
from prisma.publish.manifest import TOLERANCE, Entry, agrees, fingerprint
from prisma.repository import MAIN, Published
from prisma.run_folder import revision_of, step_in


@dataclass(frozen=True)
class Finding:
    """A problem of one label of a published mouse."""

    revision: str
    problem: str  # what was expected and what was found

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def audit(repo: str, hub: Path) -> list[Finding]:
    """The problems of a published mouse; none if every label serves the weights that it states.

    For each label it checks that its commit exists, that the files hash to the commit's id, that the weights' header
    states the label's step, that no other label serves the same weights, and that commit, SHA-256, size and fingerprint
    equal those in the manifest (the fingerprint within `manifest.TOLERANCE` times its largest logit). It also checks
    that labels and manifest list the same steps, and that `main` serves the weights of the last one.

    Raises:
        PrismaError: no such hub, or no such repository in it.
    """
    mouse = Published(repo, hub := given(hub))
    with sentences(hub):
        mouse.expect_labels()
        auditor = _Auditor(mouse, FolderHub(mouse).labels())
        return [Finding(label, problem) for label, problem in auditor.findings()]


@dataclass
class _Auditor:
    mouse: Published
    labels: dict[str, str]  # label -> commit id
    entries: dict[str, Entry] = field(default_factory=dict)  # label -> its entry in the manifest
    images: Tensor = field(default_factory=lambda: torch.empty(0))  # the probe images
    weights: dict[str, str] = field(default_factory=dict)  # hash of weights -> the first step that serves them

    def findings(self) -> Iterator[tuple[str, str]]:
        """Pairs (label, problem)."""
        if MAIN in self.labels:
            try:
                self.images, _ = self.mouse.probe()
                entries = [Entry.from_dict(values) for values in self.mouse.checkpoints()]
                self.entries = {entry.revision: entry for entry in entries}
            except PrismaError as error:
                yield MAIN, str(error)
        else:
            yield MAIN, f"expected a label {MAIN}; found none: publishing was not finished, publish again"
        for label in sorted(self.labels, key=lambda label: (label == MAIN, by_number(label))):
            try:
                yield from ((label, problem) for problem in self._problems(label))
            except PrismaError as error:
                yield label, str(error)
        for label in sorted(self.entries.keys() - self.labels.keys(), key=by_number):
            yield label, "expected a label for this step of the manifest; found none"

    def _problems(self, label: str) -> Iterator[str]:
        commit, entry = self.labels[label], self.entries.get(label)
        if entry and entry.commit != commit:
            yield f"expected commit {shown(entry.commit)} as in the manifest; found {shown(commit)}"
        if self.entries and not entry and label != MAIN:
            yield "expected a label that is in the manifest; found one that is not"
        files = FolderHub(self.mouse).read_back(commit)
        if not files:
            yield f"expected a commit {commit}; found none"
            return
        if (found := commit_id(files)) != commit:
            damaged = listed(FolderHub(self.mouse).damaged(commit), 3) or "its list of files"
            yield f"expected the files of commit {commit}; found those of {found}: {damaged} changed"
        folder = self.mouse.snapshot(commit)
        if entry and files.get(WEIGHTS):
            size = (folder / WEIGHTS).stat().st_size
            if (files[WEIGHTS], size) != (entry.sha256, entry.size):
                yield (
                    f"expected {shown(entry.size)} bytes of SHA-256 {shown(entry.sha256)}; found {size} "
                    f"of {files[WEIGHTS]}"
                )
        yield from self._weights_problems(label, folder, entry)

    def _weights_problems(self, label: str, folder: Path, entry: Entry | None) -> Iterator[str]:
        checkpoint = read_checkpoint(folder)
        found = weights_hash(checkpoint.model.state_dict())
        if label == MAIN:
            last = max(self.entries.values(), key=lambda entry: entry.step, default=None)
            if last and self.weights.get(found) != last.revision:
                yield f"expected the weights of {last.revision}; found those of {self.weights.get(found, 'no step')}"
            return
        stated = checkpoint.header.get("step", "none")
        step = step_in(stated)
        if step is None or revision_of(step) != label:
            yield f"expected weights of {label}; found a header that states step {shown(stated)}"
        if (twin := self.weights.setdefault(found, label)) != label:
            yield f"expected different weights in each revision; found the same as in {twin}"
        if entry and not agrees(fingerprint(checkpoint, self.images), entry.fingerprint):
            yield f"expected the manifest's logits on the probe images within {TOLERANCE:g}; found others"
