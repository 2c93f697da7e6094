"""What can be published: a run, the data set of a task, what belongs to a model. Each says itself what it is.

`task:NAME` is the data set of a task. A folder with the files of an artefact about a base model, a tuned lens, a
sparse coder, an edited model or an edit of a language model, is that artefact; any other is a run, finished or not.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from prisma.data import package_task
from prisma.editing.folder import BEFORE, EDIT
from prisma.errors import PrismaError, expect_packages
from prisma.filesystem import given, sentences
from prisma.publish.artefacts.coder import FOUND_BY as CODER
from prisma.publish.artefacts.coder import of_coder
from prisma.publish.artefacts.dataset import of_task
from prisma.publish.artefacts.edited_model import of_edited
from prisma.publish.artefacts.language_edit import of_language_edit
from prisma.publish.artefacts.tuned_lens import NAMES as LENS
from prisma.publish.artefacts.tuned_lens import of_lens
from prisma.publish.commits import Commit, Hub
from prisma.publish.folder_hub import FolderHub
from prisma.publish.hugging_face_hub import HuggingFaceHub
from prisma.publish.journal import Journal
from prisma.publish.manifest import Yanked
from prisma.publish.plan import Plan, Step, plan
from prisma.publish.recomputing import expect_stated_numbers
from prisma.repository import DATASET, MODEL, Published
from prisma.run_folder import checkpoint_folder

TASK = "task:"
"""What stands before the name of a task whose data set is to be published."""


class Planned(Protocol):
    """What a repository shall serve: commits of steps, if it has any, and `main`."""

    @property
    def manifest(self) -> str:
        """The name of the file of `main` that states the hashes of all others."""

    @property
    def noun(self) -> str:
        """What it is, for messages: "run"."""

    @property
    def run(self) -> str:
        """The id of what is published: two of the same id differ in their card at most."""

    @property
    def card(self) -> str:
        """The text of the card."""

    @property
    def steps(self) -> tuple[Step, ...]: ...

    def main(self, commits: Mapping[str, str], *, yanked: tuple[Yanked, ...] = ()) -> Commit:
        """The commit of `main`, once the commits of the steps have ids: see `Plan.main`."""

    def message(self, commits: Mapping[str, str]) -> str:
        """What the commit of `main` says."""


@dataclass(frozen=True)
class About:
    """What a person says about an artefact, because its files do not."""

    base_model: str | None = None  # OWNER/NAME, or OWNER/NAME@REVISION
    license: str | None = None  # an id of the Hub's

    def expect_none(self, what: str) -> None:
        if self.base_model is not None or self.license is not None:
            raise PrismaError(f"expected no base model and no license for {what}, which states both itself; found some")


@dataclass(frozen=True)
class Thing:
    """Something that can be published."""

    folder: Path  # where its journal is kept
    kind: str  # of its repository: "model" or "dataset"
    plan: Callable[[], Planned]
    check: Callable[[Planned], None] = lambda planned: None  # before anything is written: see `send`


def thing(what: str | Path, repo: str, hub: Path | None, about: About, *, progress: bool) -> Thing:
    """What a text or a path means: see the top of this module. Nothing is read but the names of files.

    Raises:
        PrismaError: there is no such task, or its data are of this machine alone.
    """
    if isinstance(what, str) and what.startswith(TASK):
        about.expect_none("the data set of a task")
        found = package_task(what.removeprefix(TASK))
        return Thing(hub or _home(), DATASET, partial(of_task, found, repo))
    folder = given(what)
    if made := about_a_model(folder):
        return Thing(folder, MODEL, partial(made, folder, repo, hub, about.base_model, about.license))
    about.expect_none("a run")
    return Thing(folder, MODEL, partial(plan, folder, repo, progress=progress), partial(_expect_numbers, folder))


def about_a_model(folder: Path) -> "Callable[..., Planned] | None":
    """What makes the artefact of a folder that has files of one about a base model; None for any other folder."""
    known: dict[tuple[str, ...], Callable[..., Planned]] = {
        LENS: of_lens, CODER: of_coder, (BEFORE,): of_edited, (EDIT,): of_language_edit
    }  # fmt: skip
    return next((made for names, made in known.items() if any((folder / name).exists() for name in names)), None)


def _home() -> Path:
    """The folder of the Hub's client, which keeps the journals of what has no folder."""
    expect_packages("huggingface_hub", extra="publish")
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "prisma"


@contextmanager
def planned_for(
    what: str | Path, repo: str, hub: str | Path | None, about: About, *, public: bool = False, progress: bool = False
) -> Iterator[tuple[Planned, Hub, Callable[[], None]]]:
    """What would be published, where, and what to call before anything is written.

    Within, requests to the Hub are counted, and errors are sentences. Arguments and errors are those of `publish`.
    """
    hub = hub if hub is None else given(hub)
    if hub is not None and hub.exists() and not hub.is_dir():
        raise PrismaError(f"expected a folder hub at {hub}; found a file")
    if hub is not None and public:
        raise PrismaError("expected no option `public` with a folder hub, which has no private repositories; found it")
    found = thing(what, repo, hub, about, progress=progress)
    with sentences(found.folder):
        writer = hub_for(found.folder, repo, hub, found.kind)
        planned = found.plan()
        with writer.calls.counting() if isinstance(writer, HuggingFaceHub) else nullcontext():
            yield planned, writer, partial(found.check, planned)


def hub_for(folder: Path, repo: str, hub: Path | None, kind: str = MODEL) -> Hub:
    """Where something is published: a repository in a folder hub, or (None) on the Hugging Face Hub.

    Args:
        folder: that of the run or artefact, which keeps the journal.
    """
    if hub is None:
        expect_packages("huggingface_hub", extra="publish")
        return HuggingFaceHub(repo, Journal.of(folder, repo), kind=kind)
    return FolderHub(Published(repo, hub, kind=kind))


def _expect_numbers(run: Path, planned: Planned) -> None:
    """Raise PrismaError unless every checkpoint of a run has the loss that the run states."""
    assert isinstance(planned, Plan)
    folders = {step.entry.step: checkpoint_folder(run, step.entry.step) for step in planned.steps}
    lines = {line["step"]: line for line in planned.record.metrics}
    expect_stated_numbers(folders, planned.record.recipe, lines, planned.record.results)
