"""Every fault that somebody planted in a published mouse is found: in a folder hub and on the Hub."""

import json
from pathlib import Path

import pytest

from prisma.publish import audit, publish, yank
from prisma.repository import MAIN, MANIFEST
from tests.hubserver.running import Hub
from tests.publish.faults import DEEP, FAULTS, OTHER, STEP
from tests.publish.places import InFolder, OnHub, Place, found, values
from tests.publish.test_publishing import drop_last_checkpoint


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(place: Place, fault: str) -> None:
    make, revision, words = FAULTS[fault]
    make(place)
    findings = place.audit()
    assert found(findings, revision, words), "\n".join(map(str, findings))


@pytest.mark.parametrize("fault", DEEP)
def test_a_fault_that_fits_the_manifest_is_found_by_reading_all(place: Place, fault: str) -> None:
    make, revision, words = DEEP[fault]
    make(place)
    findings = place.audit(deep=True)
    assert found(findings, revision, words), "\n".join(map(str, findings))


def test_what_was_published_has_no_problem(place: Place) -> None:
    assert place.audit() == []
    assert place.audit(deep=True) == []


def test_nor_has_what_replaced_another_run(run: Path, published_server: Hub, hub: Path) -> None:
    drop_last_checkpoint(run)
    publish(run, "lab/tiny", hub, replace=True, progress=False)
    publish(run, "lab/tiny", replace=True, progress=False)
    assert audit("lab/tiny", hub) == audit("lab/tiny") == []
    assert published_server.asked("refs")


def test_yanked_checkpoints_are_no_problem(place: Place) -> None:
    yank("lab/tiny", STEP, "wrong data", place.hub if isinstance(place, InFolder) else None)
    assert place.audit() == []
    place.point("yanked-step-000002", OTHER)
    assert found(place.audit(), "yanked-step-000002", "as in the manifest")
    place.remove("yanked-step-000002")
    assert found(place.audit(), "yanked-step-000002", "expected a label for the yanked step-000002; found none")


def test_an_edited_manifest_is_found_by_the_message_of_its_commit(published_server: Hub) -> None:
    place = OnHub(published_server)
    before = values(place, MANIFEST)
    place.serve(MAIN, {MANIFEST: json.dumps(before, indent=1).encode()}, "Update")
    assert found(
        place.audit(), MAIN, "expected a commit message that states the SHA-256 of checkpoints.json; found Update"
    )
    place.serve(MAIN, {MANIFEST: json.dumps(before).encode()}, f"SHA-256 of {MANIFEST}: {'0' * 64}")
    assert found(place.audit(), MAIN, f"expected checkpoints.json of SHA-256 {'0' * 64}, as its commit message states")


def test_an_unfinished_publication_says_to_publish_again(place: Place) -> None:
    if isinstance(place, OnHub):
        place.serve(MAIN, dict.fromkeys(place.names(MAIN)))
    else:
        place.remove(MAIN)
    findings = place.audit()
    assert [finding.revision for finding in findings] == [MAIN]
    assert "expected a label main; found none: publishing was not finished, publish again" in findings[0].problem


def test_the_sweep_downloads_no_weights(published_server: Hub) -> None:
    """One listing for each revision, the small files of main, and the first bytes of the weights."""
    published_server.forget()
    assert audit("lab/tiny") == []
    assert len(published_server.asked("tree")) == 6
    assert len(published_server.asked("refs")) == 1
    assert {row["status"] for row in published_server.asked("lfs_get")} == {206}
    assert len(published_server.requests) < 40


def test_all_is_removed_that_was_downloaded(
    published_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert audit("lab/tiny", deep=True) == []
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.safetensors"))
