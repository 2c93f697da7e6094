"""Which sparse coders there are of a model: published where it is, with the model as their base model.

In a folder hub these are all its coders; on the Hugging Face Hub those of the model's owner, whose cards say what they
are.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from prisma.downloads import WAIT, why_unreachable
from prisma.errors import PrismaError
from prisma.publish.artefacts.artefact import ArtefactManifest
from prisma.publish.artefacts.base_model import BaseModel
from prisma.publish.artefacts.coder import KIND, TAGS
from prisma.publish.facts import Fact
from prisma.publish.layouts import step_name
from prisma.reading import read_bytes
from prisma.repo_names import is_repo_name
from prisma.repository import ARTEFACT, MAIN, Published, repositories_in
from prisma.sparse.coders import Coder
from prisma.sparse.files import CFG, WEIGHTS, read_coder
from prisma_app.models import Mouse
from prisma_app.subject import Subject

FRESH = 60.0  # seconds for which the Hub is not asked again
MOST = 100  # coders of an owner that are looked at


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


_ASKED: dict[str, tuple[float, Sequence[PublishedCoder]]] = {}
"""Name of a model of the Hub -> when its coders were asked for, and which there were."""


def coders_of(subject: Subject) -> Sequence[PublishedCoder]:
    """The coders of a model, in the order of their training steps; none of what is not published.

    A repository that is damaged is none of them: `prisma audit` says what is wrong with it.

    Raises:
        PrismaError: the Hub does not answer.
    """
    if not isinstance(subject, Mouse):
        return []
    hub = subject.published.hub
    if hub is not None:
        return _among(subject, [Published(repo, hub) for repo in repositories_in(hub)])
    when, known = _ASKED.get(subject.name, (-FRESH, []))
    if time.monotonic() - when >= FRESH:
        known = _among(subject, [Published(repo) for repo in _of_owner(subject.name.partition("/")[0])])
        _ASKED[subject.name] = time.monotonic(), known
    return known


def _among(subject: Mouse, repositories: Sequence[Published]) -> Sequence[PublishedCoder]:
    """Those of these repositories that are coders of the model."""
    found = list[PublishedCoder]()
    for there in repositories:
        try:
            published = Published(there.repo, there.hub, commit=_commit_of(there))
            manifest = ArtefactManifest.parse(read_bytes(published.file(ARTEFACT)))
            base = BaseModel.read(Fact(manifest.about, ARTEFACT)["base_model"]) if manifest.kind == KIND else None
        except PrismaError:
            continue
        if base is not None and base.repo == subject.name:
            named = step_name(base.revision) if base.revision else None
            found.append(PublishedCoder(published, subject.steps[-1] if named is None else int(named.step)))
    return sorted(found, key=lambda one: (one.step, one.name))


def _commit_of(there: Published) -> str:
    """What `main` of a repository names. Raises PrismaError: it is no artefact, or damaged."""
    return there.commit_of(MAIN) if there.hub is not None else there.file(ARTEFACT).parent.name


def _of_owner(owner: str) -> list[str]:
    """The repositories of an owner of the Hub whose cards have the tag of sparse coders."""
    from huggingface_hub import constants, get_session, get_token

    why, listed = why_unreachable(), None
    if why is None:
        asked = {"author": owner, "filter": TAGS[0], "limit": str(MOST)}
        try:  # once: a visitor waits
            address = f"{constants.ENDPOINT}/api/models"
            own = {"authorization": f"Bearer {token}"} if (token := get_token()) else {}
            answer = get_session().get(address, params=asked, headers=own, timeout=WAIT)
            why, listed = f"status {answer.status_code}", answer.json() if answer.status_code == 200 else None
        except Exception as error:  # of any kind: connections, certificates, what is no JSON
            why = type(error).__name__
    names = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else None
    if names is None:
        raise PrismaError(f"expected the Hub to list the sparse coders of {owner}; found {why}")
    return sorted(name for name in names if isinstance(name, str) and is_repo_name(name))[:MOST]
