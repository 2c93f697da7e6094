"""An artefact: some files, a card, and a manifest that states what it is and the hashes of all files.

It is published by the same machinery as a run. Most have `main` alone; one that was trained may have its checkpoints as
revisions too, and then the manifest states their files. The card is rendered from what
the manifest says about the artefact, and from nothing else, so an audit can render it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from prisma.errors import PrismaError, shown
from prisma.fields import conform
from prisma.files import to_json
from prisma.publish.commits import Commit, File, FileRecord, commit_id
from prisma.publish.manifest import Yanked
from prisma.publish.plan import CARD, Step
from prisma.reading import parse_json
from prisma.repository import ARTEFACT, DATASET

FORMAT = 1
"""What the manifest states as `format`."""


def content_id(files: Iterable[FileRecord]) -> str:
    """The id of what is published: a hash of its files, the card left out."""
    return commit_id({record.name: record.sha256 for record in files if record.name != CARD})


@dataclass(frozen=True)
class ArtefactManifest:
    """The content of `manifest.json`."""

    kind: str  # what the artefact is, as `kinds.KINDS` calls it
    id: str  # a hash of its files, the card left out
    about: Mapping[str, Any]  # what the card is rendered from
    files: tuple[FileRecord, ...]  # all other files of `main`
    format: int = FORMAT

    @classmethod
    def parse(cls, data: bytes) -> "ArtefactManifest":
        """Raises PrismaError unless these are the bytes of a manifest of this format."""
        try:
            values = parse_json(data.decode(), ARTEFACT)
        except UnicodeDecodeError:
            raise PrismaError(f"expected text in UTF-8 in {ARTEFACT}; found other bytes") from None
        fields = {"kind": str, "id": str, "files": tuple[FileRecord, ...], "format": int}
        if not isinstance(values, dict) or values.keys() != {*fields, "about"} or not isinstance(values["about"], dict):
            raise PrismaError(f"expected the manifest of an artefact in {ARTEFACT}; found something else")
        found = {name: conform(f"{name} of {ARTEFACT}", values[name], kind) for name, kind in fields.items()}
        if found["format"] != FORMAT:
            raise PrismaError(
                f"expected format {FORMAT} in {ARTEFACT}; found {shown(found['format'])}: it was published by another "
                "version of Prisma; publish it again"
            )
        return cls(about=values["about"], **found)

    def to_json(self) -> bytes:
        return to_json(asdict(self))


@dataclass(frozen=True)
class Artefact:
    """What a repository of an artefact shall serve: see `things.Planned`."""

    manifest: ClassVar[str] = ARTEFACT

    kind: str
    about: Mapping[str, Any]
    files: tuple[File, ...]  # without the card
    card: str
    steps: tuple[Step, ...] = ()  # its checkpoints

    @property
    def noun(self) -> str:
        return "data set" if self.kind == DATASET else self.kind.replace("-", " ")

    @property
    def run(self) -> str:
        """The id of its content."""
        return content_id([file.record for file in self.files])

    def message(self, commits: Mapping[str, str]) -> str:
        return f"A {self.noun} of {len(self.files)} files"

    def main(self, commits: Mapping[str, str], *, yanked: tuple[Yanked, ...] = ()) -> Commit:
        files = (File.of(CARD, self.card.encode()), *self.files)
        manifest = ArtefactManifest(self.kind, self.run, self.about, tuple(file.record for file in files))
        return Commit((*files, File.of(ARTEFACT, manifest.to_json())))
