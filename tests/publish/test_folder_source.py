"""A folder hub is read within its own folder only."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.publish import audit
from prisma.publish.folder_source import FolderSource, named_like
from prisma.repository import Published
from tests.publish.places import REPO, InFolder, found

STEP = "step-000002"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("mine")
    return path


def link_file(place: InFolder, secret: Path) -> None:
    path = place.path("main", "curves/loss.svg")
    path.unlink()
    path.symlink_to(secret)


def link_blob(place: InFolder, secret: Path) -> None:
    """A link through a blob that is a link itself."""
    blob = place.path("main", "curves/loss.svg").resolve()
    blob.unlink()
    blob.symlink_to(secret)


def link_folder(place: InFolder, secret: Path) -> None:
    path = place.path("main", "curves")
    shutil.rmtree(path)
    path.symlink_to(secret.parent)


def link_label(place: InFolder, secret: Path) -> None:
    path = place.mouse.folder / "refs" / "main"
    path.unlink()
    path.symlink_to(secret)


def link_snapshot(place: InFolder, secret: Path) -> None:
    path = place.mouse.snapshot(place.labels()["main"])
    shutil.move(path, secret.parent / "moved")
    path.symlink_to(secret.parent / "moved")


LINKS: dict[str, tuple[Callable[[InFolder, Path], None], str]] = {
    "file": (link_file, "curves/loss.svg, a link that leads outside, to"),
    "blob": (link_blob, "curves/loss.svg, a link that leads outside, to"),
    "folder": (link_folder, "curves, a link that leads outside, to"),
    "label": (link_label, "refs/main, a link that leads outside, to"),
    "snapshot": (link_snapshot, "found a link: it is not followed"),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_outside_is_a_problem(hub: Path, secret: Path, name: str) -> None:
    make, words = LINKS[name]
    make(InFolder(hub), secret)
    findings = audit(REPO, hub)
    assert found(findings, "main", words), findings
    assert not any("mine" in finding.problem for finding in findings)


@pytest.mark.parametrize("name", ["", "refs", "snapshots", "blobs"])
def test_a_linked_folder_of_the_hub_is_refused(hub: Path, tmp_path: Path, name: str) -> None:
    path = hub / "models--lab--tiny" / name
    shutil.move(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(PrismaError, match=r"found a link to .*, which is not followed"):
        audit(REPO, hub)


def test_a_hub_may_itself_be_reached_through_a_link(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(hub)
    assert audit(REPO, tmp_path / "linked") == []


def test_a_pipe_is_a_problem_and_nobody_waits_for_it(hub: Path) -> None:
    path = InFolder(hub).path(STEP, "config.json")
    path.unlink()
    os.mkfifo(path)
    assert found(audit(REPO, hub), STEP, "found a pipe (FIFO)")


def test_labels_are_all_files_of_refs(hub: Path) -> None:
    place = InFolder(hub)
    place.point("pr/1", STEP)
    (place.mouse.folder / "refs" / ".DS_Store").write_text("")
    (place.mouse.folder / "refs" / "huge").write_text("x" * 2000)
    source = FolderSource(Published(REPO, hub))
    labels = source.labels()
    assert set(labels) == {*place.labels(), "pr/1", "huge"}
    assert labels["pr/1"] == labels[STEP]
    assert "of at most 1,000 bytes" in source.problems(labels["huge"], ours=True)[0]
    assert source.listing(labels["huge"]) == {}


def test_equal_files_are_hashed_once(hub: Path) -> None:
    source = FolderSource(Published(REPO, hub))
    for commit in source.labels().values():
        assert source.listing(commit)
    assert len(source._records) < sum(len(source.listing(commit)) for commit in source.labels().values())


def test_repositories_by_the_beginning_of_their_names(hub: Path) -> None:
    assert named_like(hub, "lab/t*") == [REPO]
    assert named_like(hub, "lab/x*") == []
