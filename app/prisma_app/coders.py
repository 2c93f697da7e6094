"""Which sparse coders there are of a model: published in the same folder hub, with the model as their base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from prisma.errors import PrismaError
from prisma.publish.artefacts.artefact import ArtefactManifest
from prisma.publish.artefacts.base_model import BaseModel
from prisma.publish.artefacts.coder import KIND
from prisma.publish.facts import Fact
from prisma.publish.layouts import step_name
from prisma.reading import read_bytes
from prisma.repository import ARTEFACT, MAIN, Published, repositories_in
from prisma.sparse.coders import Coder
from prisma.sparse.files import CFG, WEIGHTS, read_coder
from prisma_app.models import Mouse
from prisma_app.subject import Subject


@dataclass(frozen=True)
class PublishedCoder:
    """A coder, at the commit that its `main` has, and the training step of the model that it belongs to."""

    published: Published
    step: int

    @property
    def name(self) -> str:
        return self.published.repo

    @cached_property
    def coder(self) -> Coder:
        folder = self.published.file(CFG).parent
        self.published.file(WEIGHTS)
        return read_coder(folder)


def coders_of(subject: Subject) -> Sequence[PublishedCoder]:
    """The coders of a model, in the order of their training steps; none of what is not in a folder hub.

    A repository that is damaged is none of them: `prisma audit` says what is wrong with it.
    """
    if not isinstance(subject, Mouse) or subject.published.hub is None:
        return []
    hub, found = subject.published.hub, list[PublishedCoder]()
    for repo in repositories_in(hub):
        try:
            commit = Published(repo, hub).commit_of(MAIN)
            published = Published(repo, hub, commit=commit)
            if not (published.snapshot(commit) / ARTEFACT).is_file():
                continue
            manifest = ArtefactManifest.parse(read_bytes(published.file(ARTEFACT)))
            base = BaseModel.read(Fact(manifest.about, ARTEFACT)["base_model"]) if manifest.kind == KIND else None
        except PrismaError:
            continue
        if base is not None and base.repo == subject.name:
            named = step_name(base.revision) if base.revision else None
            found.append(PublishedCoder(published, subject.steps[-1] if named is None else int(named.step)))
    return sorted(found, key=lambda one: (one.step, one.name))
