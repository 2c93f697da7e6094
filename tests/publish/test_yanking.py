"""A checkpoint that is taken back has no label, stays readable, and everybody can read why."""

from pathlib import Path

import pytest

import prisma
from prisma.errors import PrismaError
from prisma.publish import audit, diff, publish, yank
from prisma.publish.folder_hub import FolderHub
from prisma.publish.manifest import Manifest
from prisma.repository import MANIFEST, Published
from tests.publish.keys import pair

STEP, ASIDE, WHY = "step-000002", "yanked-step-000002", "trained on *the* test images"


def manifest(address: Path | None) -> Manifest:
    return Manifest.parse(Published("lab/tiny", address).file(MANIFEST).read_bytes())


def test_its_label_is_another_and_the_card_says_why(run: Path, address: Path | None) -> None:
    before = next(entry for entry in manifest(address).checkpoints if entry.revision == STEP)
    report = yank("lab/tiny", STEP, WHY, address, today="2026-01-02")
    assert report.changed
    (row,) = manifest(address).yanked
    assert row == report.yanked
    assert (row.step, row.revision, row.moved_to, row.commit) == (2, STEP, ASIDE, before.commit)
    assert (row.why, row.when) == (WHY, "2026-01-02")
    assert STEP not in {entry.revision for entry in manifest(address).checkpoints}
    assert manifest(address).steps == (0, 1, 2, 4, 6)
    card = Published("lab/tiny", address).file("README.md").read_text()
    assert "`trained on *the* test images`" in card and f"`{ASIDE}`" in card
    assert f"| `{STEP}` |" not in card
    with pytest.raises(PrismaError):
        prisma.load("lab/tiny", revision=STEP, hub=address)
    assert prisma.load("lab/tiny", revision=ASIDE, hub=address).model
    assert not diff(run, "lab/tiny", address)


def test_publishing_again_leaves_it_so(run: Path, address: Path | None) -> None:
    yank("lab/tiny", STEP, WHY, address)
    assert not publish(run, "lab/tiny", address, progress=False).changed


def test_twice_changes_nothing_and_another_reason_is_stated(address: Path | None) -> None:
    first = yank("lab/tiny", STEP, WHY, address, today="2026-01-02")
    again = yank("lab/tiny", STEP, WHY, address, today="2026-05-05")
    assert (again.changed, again.commit, again.yanked) == (False, first.commit, first.yanked)
    assert yank("lab/tiny", STEP, "a better reason", address).yanked.why == "a better reason"
    assert [row.why for row in manifest(address).yanked] == ["a better reason"]


def test_a_signature_that_was_forgotten_is_made_by_the_same_command(address: Path | None, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    yank("lab/tiny", STEP, WHY, address)
    assert yank("lab/tiny", STEP, WHY, address, sign=private).changed
    assert not yank("lab/tiny", STEP, WHY, address, sign=private).changed
    assert not audit("lab/tiny", address, key=public)


def test_what_was_stopped_is_completed(address: Path | None, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the new label and the manifest."""
    kind = FolderHub if address else prisma.publish.things.HuggingFaceHub

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kind, "amend", stop)
        yank("lab/tiny", STEP, WHY, address)
    assert yank("lab/tiny", STEP, WHY, address).changed
    assert not diff(run, "lab/tiny", address)


@pytest.mark.parametrize(
    ("revision", "why", "sentence"),
    [
        (
            "step-000003",
            WHY,
            "expected the label of a published checkpoint; found 'step-000003'; the nearest: step-000",
        ),
        ("main", WHY, "expected the label of a published checkpoint"),
        ("step-000006", WHY, "expected a checkpoint before the last"),
        (STEP, " \n", "expected a reason"),
        (STEP, "x" * 501, "expected a reason of 1 to 500 characters"),
    ],
)
def test_what_cannot_be_taken_back_is_one_sentence(hub: Path, revision: str, why: str, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        yank("lab/tiny", revision, why, hub)


def test_a_mouse_that_is_not_there_is_one_sentence(hub: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected a published mouse lab/other in .*; found no checkpoints.json"):
        yank("lab/other", STEP, WHY, hub)
