"""Publish a run into a folder hub: check everything, then commit, verify and label, step by step, `main` last."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from prisma.errors import PrismaError, by_number, shown
from prisma.filesystem import given, sentences
from prisma.publish.hub import Commit, FolderHub
from prisma.publish.plan import CARD, Plan, plan
from prisma.repository import MAIN, Published


@dataclass(frozen=True)
class Report:
    """The outcome of publishing."""

    repo: str
    hub: str
    changed: bool  # False: everything was published already, and nothing was written
    commit: str  # the commit of main
    revisions: tuple[str, ...]  # the labels of the checkpoints, in step order
    made: tuple[str, ...]  # labels that are new
    moved: tuple[str, ...]  # labels that now serve another commit
    repaired: tuple[str, ...]  # labels whose files were damaged and are whole again
    removed: tuple[str, ...]  # labels that this run does not have

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def publish(run: Path, repo: str, hub: Path, *, replace: bool = False, progress: bool = True) -> Report:
    """Publish a finished run: a revision per checkpoint, and `main` with the final weights, the card and the manifest.

    A label is made only after every byte of its commit was read back and hashed. A kill at any moment leaves only
    labels that serve verified weights, and publishing again completes the rest. Publishing twice writes nothing,
    and needs no permission to write.

    Args:
        run: a run folder with results.json.
        repo: OWNER/NAME.
        hub: a folder hub; made if absent.
        replace: move labels that serve other bytes, and remove labels that this run does not have. Old commits stay
            readable by id. A `main` that differs only in its card moves without this.
        progress: show bars on stderr.

    Raises:
        PrismaError: the run cannot be published (see `plan`), a label serves other bytes, another process publishes,
            or a file could not be written.
    """
    run, hub = given(run), given(hub)
    if hub.exists() and not hub.is_dir():
        raise PrismaError(f"expected a folder hub at {hub}; found a file")
    writer = FolderHub(Published(repo, hub))
    with sentences(run):
        planned = plan(run, repo, progress=progress)
        changes = ((), (), (), ()) if _is_published(writer, planned) else _write(writer, planned, replace, progress)
    steps = tuple(label for label in planned.revisions if label != MAIN)
    return Report(repo, str(hub), any(changes), planned.revisions[MAIN].id, steps, *changes)


def _is_published(writer: FolderHub, planned: Plan) -> bool:
    """Whether all labels serve these commits already, every byte: then nothing is written, and no lock is needed."""
    wanted = {label: commit.id for label, commit in planned.revisions.items()}
    return writer.labels() == wanted and all(map(writer.is_whole, planned.revisions.values()))


def _write(writer: FolderHub, planned: Plan, replace: bool, progress: bool) -> tuple[tuple[str, ...], ...]:
    """Make every commit and label, and return the labels that were made, moved, repaired and removed."""
    with writer.writing() as expect_alone:
        before = writer.labels()
        if not replace:
            _expect_no_conflict(writer, planned, before)
        made, moved, repaired = list[str](), list[str](), list[str]()
        for label, commit in tqdm(planned.revisions.items(), desc="publishing", unit="label", disable=not progress):
            expect_alone()
            written = writer.add(commit)
            expect_alone()
            if before.get(label) != commit.id:
                writer.label(label, commit.id)
                (moved if label in before else made).append(label)
            elif written:
                repaired.append(label)
        removed = sorted(set(before) - set(planned.revisions), key=by_number)
        for label in removed:
            expect_alone()
            writer.unlabel(label)
    return tuple(made), tuple(moved), tuple(repaired), tuple(removed)


def preview(run: Path, repo: str) -> str:
    """The card that `publish` would publish: Markdown with YAML front matter. Raises PrismaError as `plan` does."""
    return plan(given(run), Published(repo).repo).card


def _expect_no_conflict(writer: FolderHub, planned: Plan, labels: dict[str, str]) -> None:
    in_order = sorted(labels.items(), key=lambda item: (item[0] == MAIN, by_number(item[0])))
    for label, there in in_order:  # a step first: it is more informative than main
        commit = planned.revisions.get(label)
        if commit is None:
            raise PrismaError(
                f"expected only revisions of this run in {writer.mouse.repo}; found {label} (commit "
                f"{shown(there)}), which it does not have: --replace removes it"
            )
        if commit.id != there and not (label == MAIN and _differs_only_in_card(writer, commit, there)):
            raise PrismaError(
                f"expected {label} of {writer.mouse.repo} to be commit {commit.id}; found {shown(there)}, with "
                f"other files: --replace moves the label"
            )


def _differs_only_in_card(writer: FolderHub, commit: Commit, there: str) -> bool:
    """Whether a commit differs from the published one only in the card, which is rendered from the other files."""
    new, old = {file.name: file.sha256 for file in commit.files}, writer.read_back(there)
    return {**old, CARD: ""} == {**new, CARD: ""}
