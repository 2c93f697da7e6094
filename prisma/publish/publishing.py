"""Publish a run into a folder hub: check everything, then commit, verify and label, step by step, `main` last."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from prisma.errors import PrismaError
from prisma.publish.hub import Commit, FolderHub
from prisma.publish.plan import CARD, Plan, plan
from prisma.repository import MAIN, Published


@dataclass(frozen=True)
class Report:
    """What publishing did."""

    repo: str
    hub: str
    changed: bool  # False: everything was there already, nothing was written
    commit: str  # of main
    revisions: tuple[str, ...]  # labels of the checkpoints, in step order
    made: tuple[str, ...]  # labels that are new
    moved: tuple[str, ...]  # labels that now serve another commit
    repaired: tuple[str, ...]  # labels whose files were damaged and are whole again
    removed: tuple[str, ...]  # labels that this run does not have

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def publish(run: Path, repo: str, hub: Path, *, replace: bool = False, progress: bool = True) -> Report:
    """Publish a finished run: a revision per checkpoint, and `main` with the final weights, the card and the manifest.

    A label is made only after every byte of its commit was read back and hashed; a kill at any moment leaves labels
    that serve verified weights, and publishing again completes the rest. Publishing twice writes nothing.

    Args:
        run: a run folder with results.json.
        repo: OWNER/NAME.
        hub: a folder hub; made if absent.
        replace: let labels that serve other bytes move, and remove those that this run does not have. Their old commits
            stay readable by id. A `main` that differs in its card alone moves without this.
        progress: show bars on stderr.

    Raises:
        PrismaError: the run is not fit to be published (see `plan`), a label serves other bytes, another publisher is
            at work, or a file could not be written.
    """
    if hub.exists() and not hub.is_dir():
        raise PrismaError(f"expected a folder hub at {hub}, found a file")
    writer = FolderHub(Published(repo, hub))
    planned = plan(run, repo, progress=progress)
    with writer.writing():
        before = writer.labels()
        if not replace:
            _expect_no_conflict(writer, planned, before)
        made, moved, repaired = list[str](), list[str](), list[str]()
        for label, commit in tqdm(planned.revisions.items(), desc="publishing", unit="label", disable=not progress):
            written = writer.add(commit)
            if before.get(label) != commit.id:
                writer.label(label, commit.id)
                (moved if label in before else made).append(label)
            elif written:
                repaired.append(label)
        removed = sorted(set(before) - set(planned.revisions))
        for label in removed:
            writer.unlabel(label)
    changes = (tuple(made), tuple(moved), tuple(repaired), tuple(removed))
    steps = tuple(label for label in planned.revisions if label != MAIN)
    return Report(repo, str(hub), any(changes), planned.revisions[MAIN].id, steps, *changes)


def preview(run: Path, repo: str) -> str:
    """The card that `publish` would send: Markdown with YAML front matter. Raises PrismaError as `publish` does."""
    return plan(run, Published(repo).repo).card


def _expect_no_conflict(writer: FolderHub, planned: Plan, labels: dict[str, str]) -> None:
    for label, there in sorted(labels.items(), key=lambda item: item[0] == MAIN):  # a step says more than main
        commit = planned.revisions.get(label)
        if commit is None:
            raise PrismaError(
                f"{writer.mouse.repo} has a label {label} (commit {there}), and this run has no such checkpoint; "
                "--replace removes it"
            )
        if commit.id != there and not (label == MAIN and _differs_in_card_alone(writer, commit, there)):
            raise PrismaError(
                f"{label} of {writer.mouse.repo} serves commit {there}, and this run makes it {commit.id}; "
                "--replace moves the label"
            )


def _differs_in_card_alone(writer: FolderHub, commit: Commit, there: str) -> bool:
    """A card is rendered from the other files, so a better template may render it again."""
    new, old = {file.name: file.sha256 for file in commit.files}, writer.read_back(there)
    return {**old, CARD: ""} == {**new, CARD: ""}
