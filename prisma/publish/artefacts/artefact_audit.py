"""The audit of an artefact: every file against its manifest, the card, and what the manifest says about the files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prisma.bounds import JSON
from prisma.editing.folder import BEFORE, EDIT, MEASURES
from prisma.errors import PrismaError, listed, shown
from prisma.publish.artefacts.artefact import ArtefactManifest, content_id
from prisma.publish.artefacts.coder import FOUND_BY as CODER
from prisma.publish.artefacts.kinds import KINDS, Kind
from prisma.publish.artefacts.tuned_lens import NAMES as LENS
from prisma.publish.commits import FileRecord
from prisma.publish.file_check import file_problems, message_problems
from prisma.publish.findings import Finding, gathered
from prisma.publish.layouts import step_name
from prisma.publish.main_files import difference
from prisma.publish.plan import CARD
from prisma.publish.prose import prose_of, with_prose
from prisma.publish.signing import ENDING
from prisma.publish.sources import Source
from prisma.publish.unsafe import unsafe_problem
from prisma.reading import read_bytes, read_text
from prisma.repository import ARTEFACT, DATASET, MAIN, MANIFEST

FOUND_BY = (LENS, CODER, (EDIT, BEFORE), (EDIT, MEASURES))
"""Files by which a repository without a manifest is taken for an artefact."""


def is_artefact(source: Source, labels: Mapping[str, str]) -> bool:
    """Whether a repository is an artefact's: any data set, and a model repository with the manifest or files of one."""
    listing = source.listing(labels[MAIN]) if MAIN in labels else {}
    if source.kind == DATASET or MANIFEST in listing:  # a mouse, to which somebody may have added such a file
        return source.kind == DATASET
    return ARTEFACT in listing or any(
        set(names) <= listing.keys() for names in (LENS, CODER, (EDIT, BEFORE), (EDIT, MEASURES))
    )


@dataclass
class ArtefactAudit:
    """The audit of one artefact. `deep`: read large files too."""

    source: Source
    labels: Mapping[str, str]  # label -> commit id
    deep: bool
    checkpoints: Mapping[str, tuple[FileRecord, ...]] = field(default_factory=dict)  # once `main` was looked at
    has_manifest: bool = False  # whether there was one to compare with, once `findings` has ended

    def findings(self) -> Iterator[Finding]:
        if MAIN not in self.labels or not self.source.listing(self.labels[MAIN]):
            yield Finding(MAIN, f"expected files at a label {MAIN}; found none: publish again")
            return
        yield from (Finding(MAIN, problem) for problem in gathered(self._problems(self.labels[MAIN])))
        for label, commit in sorted(self.labels.items()):
            if label != MAIN and (problem := unsafe_problem(self.source.listing(commit))):
                yield Finding(label, problem)
            if label != MAIN and step_name(label) and label not in self.checkpoints:
                yield Finding(label, "expected no label of a checkpoint that the manifest does not state; found one")
        for label, records in self.checkpoints.items():
            if label not in self.labels:
                yield Finding(label, "expected this checkpoint, as in the manifest; found no such label: publish again")
            else:
                found = self.source.listing(self.labels[label])
                yield from (Finding(label, problem) for problem in file_problems(records, found))
        if not self.source.is_local:
            self.source.forget()

    def _problems(self, commit: str) -> Iterator[str]:
        listing = self.source.listing(commit)
        yield from self.source.problems(commit, ours=True)
        if problem := unsafe_problem(listing):
            yield problem
        if ARTEFACT not in listing:
            yield f"expected {ARTEFACT}, which Prisma publishes; found none, so that nothing can be compared with it"
            return
        manifest = ArtefactManifest.parse(read_bytes(self._folder(commit, ARTEFACT) / ARTEFACT))
        self.has_manifest = True
        kind = KINDS.get(manifest.kind)
        stated = {name: record for name, record in listing.items() if name not in (ARTEFACT, f"{ARTEFACT}{ENDING}")}
        yield from file_problems(manifest.files, stated)
        yield from message_problems(self.source, commit, ARTEFACT)
        if kind is None:
            yield f"expected a kind of artefact that Prisma knows ({listed(list(KINDS))}); found {shown(manifest.kind)}"
            return
        if kind.repository != self.source.kind:
            yield f"expected a {manifest.kind} in a {kind.repository} repository; found it in a {self.source.kind}'s"
        found, wanted = sorted(record.name for record in manifest.files), sorted((CARD, *kind.names))
        if found != wanted:
            yield f"expected the files {listed(wanted)} in {ARTEFACT}, each once; found {listed(found)}"
        if manifest.id != (own := content_id(manifest.files)):
            yield f"expected the id {own} in {ARTEFACT}, which is a hash of its files; found {shown(manifest.id)}"
        if odd := sorted(manifest.about.keys() - kind.facts):
            yield f"expected only {listed(sorted(kind.facts))} in about of {ARTEFACT}; found {listed(odd)}"
        yield from gathered(self._checkpoint_problems(manifest, kind))
        yield from gathered(self._card_problems(commit, manifest, kind))
        yield from gathered(self._content_problems(commit, manifest, kind))

    def _checkpoint_problems(self, manifest: ArtefactManifest, kind: Kind) -> Iterator[str]:
        """None, or why what the manifest says of checkpoints cannot be read."""
        self.checkpoints = kind.checkpoints(manifest.about)
        yield from ()

    def _folder(self, commit: str, name: str) -> Path:
        """A folder with a small file of a commit."""
        if (record := self.source.listing(commit).get(name)) and record.size > JSON:
            raise PrismaError(f"expected {name} of at most {JSON:,} bytes; found {record.size:,}")
        return self.source.folder(commit, [name])

    def _card_problems(self, commit: str, manifest: ArtefactManifest, kind: Kind) -> Iterator[str]:
        found = read_text(self._folder(commit, CARD) / CARD)
        wanted = with_prose(kind.render(self.source.repo, manifest.about), prose_of(found))
        if found != wanted:
            yield difference(found, wanted)

    def _content_problems(self, commit: str, manifest: ArtefactManifest, kind: Kind) -> Iterator[str]:
        reads = self.deep or kind.is_small or self.source.is_local
        folder = self.source.folder(commit, kind.names) if reads else Path()
        yield from gathered(kind.problems(folder, self.source.repo, manifest.about, deep=self.deep), folder)
