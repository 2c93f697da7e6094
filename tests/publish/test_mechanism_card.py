"""A mechanism card is published in one commit, stays when the run is published again, and is audited."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.mechanisms import Finding, Mechanism, StepFindings, mechanism, page, section
from prisma.mechanisms.findings import SOURCE
from prisma.mechanisms.page import PAGE
from prisma.publish import audit, diff, mechanism_card, publish, yank
from prisma.publish.mechanism_card import expect_own_files, publish_mechanism, write_mechanism
from prisma.publish.mechanism_section import BEGIN, END
from prisma.repository import Published
from tests.conftest import REPO
from tests.hubserver.running import Hub
from tests.publish.keys import pair
from tests.publish.places import InFolder, Place, edit, edit_text, fit, found


@pytest.fixture(scope="session")
def card(finished_run: Path) -> Mechanism:
    """Of the weights that the tests publish."""
    return mechanism(finished_run, limit=24, pairs=8)


def main_files(address: Path | None, *names: str) -> list[bytes]:
    return [Published(REPO, address).file(name).read_bytes() for name in names]


def test_it_is_in_the_card_and_the_rest_of_the_card_is_as_it_was(card: Mechanism, address: Path | None) -> None:
    (before,) = main_files(address, "README.md")
    report = publish_mechanism(card, REPO, address)
    assert report.changed and set(report.files) >= {"README.md", PAGE, SOURCE, "mechanism/heads.png"}
    readme, text, values = main_files(address, "README.md", PAGE, SOURCE)
    marked = f"{BEGIN}\n{section(card)}{END}\n\n".encode()
    assert readme.count(marked) == 1 and readme.replace(marked, b"") == before
    assert (text.decode(), values) == (page(card), card.to_json())
    assert not audit(REPO, address) and not audit(REPO, address, deep=True)
    again = publish_mechanism(card, REPO, address)
    assert (again.changed, again.files, again.commit) == (False, (), report.commit)


def test_another_card_takes_its_place(card: Mechanism, finished_run: Path, hub: Path) -> None:
    publish_mechanism(card, REPO, hub)
    other = mechanism(finished_run, limit=16, pairs=8, seed=5)
    assert publish_mechanism(other, REPO, hub).changed
    (readme,) = main_files(hub, "README.md")
    assert readme.count(BEGIN.encode()) == 1 and section(other).encode() in readme
    assert not audit(REPO, hub)


def without_heads(card: Mechanism) -> Mechanism:
    """The card of a mouse of whose heads nothing can be said."""
    steps = [StepFindings("heads", (Finding("refused"),)) if one.step == "heads" else one for one in card.steps]
    return replace(card, steps=tuple(steps))


def test_a_picture_that_a_new_card_does_not_have_goes(card: Mechanism, run: Path, address: Path | None) -> None:
    other, mine, old = without_heads(card), run / "mechanism" / "mine.png", "mechanism/heads.png"
    write_mechanism(card, run)
    mine.write_bytes(b"mine")
    there = {path.name for path in mine.parent.iterdir()}
    assert run / old not in write_mechanism(other, run)
    assert {path.name for path in mine.parent.iterdir()} == there - {"heads.png"}
    publish_mechanism(card, REPO, address)
    foreseen = publish_mechanism(other, REPO, address, dry_run=True)
    report = publish_mechanism(other, REPO, address)
    assert report.changed and (report.files, report.removed) == (foreseen.files, (old,)) and foreseen.removed == (old,)
    with pytest.raises(PrismaError, match=r"heads\.png"):
        main_files(address, old)
    assert not audit(REPO, address) and not audit(REPO, address, deep=True)
    assert publish_mechanism(other, REPO, address).removed == ()


def test_publishing_and_yanking_leave_it_there(card: Mechanism, run: Path, address: Path | None) -> None:
    publish_mechanism(card, REPO, address)
    assert not diff(run, REPO, address)
    assert not publish(run, REPO, address, progress=False).changed
    yank(REPO, "step-000002", "trained on the test images", address)
    assert section(card).encode() in main_files(address, "README.md")[0]
    assert not audit(REPO, address) and not publish(run, REPO, address, progress=False).changed


def test_it_is_one_commit_on_the_hub(card: Mechanism, published_server: Hub) -> None:
    before = len(published_server.api.list_repo_commits(REPO))
    assert publish_mechanism(card, REPO, dry_run=True).files
    assert len(published_server.api.list_repo_commits(REPO)) == before
    publish_mechanism(card, REPO)
    assert len(published_server.api.list_repo_commits(REPO)) == before + 1


def test_a_signature_is_made_anew(card: Mechanism, hub: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    publish_mechanism(card, REPO, hub, sign=private)
    assert not audit(REPO, hub, key=public)


def test_a_run_is_published_with_the_card_beside_it(card: Mechanism, run: Path, tmp_path: Path) -> None:
    (run / "README.md").write_bytes(b"\xef\xbb\xbf# Mine\r\n\r\nwords\r\n")
    written = write_mechanism(card, run)
    assert written[-1] == run / SOURCE and run / "README.md" in written
    text = (run / "README.md").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf# Mine\r\n\r\nwords\r\n") and section(card).encode() in text
    assert write_mechanism(card, run) and (run / "README.md").read_bytes() == text
    publish(run, REPO, hub := tmp_path / "new", progress=False)
    assert not audit(REPO, hub, deep=True) and not diff(run, REPO, hub)
    assert section(card).encode() in main_files(hub, "README.md")[0]
    (run / "mechanism" / "heads.png").unlink()
    with pytest.raises(PrismaError, match=r"expected the picture mechanism/heads.png"):
        publish(run, REPO, hub, progress=False)


def test_a_card_of_other_weights_is_refused(card: Mechanism, run: Path, hub: Path) -> None:
    other = Mechanism.parse(card.to_json().replace(card.weights.encode(), b"0" * 64))
    with pytest.raises(PrismaError, match="of the weights of lab/tiny"):
        publish_mechanism(other, REPO, hub)
    (run / SOURCE).write_bytes(other.to_json())
    with pytest.raises(PrismaError, match="found that of 0000"):
        publish(run, REPO, hub, progress=False)
    with pytest.raises(PrismaError, match="expected a published mouse lab/none"):
        publish_mechanism(card, "lab/none", hub)


def test_an_audit_sees_what_was_edited(card: Mechanism, place: Place) -> None:
    publish_mechanism(card, REPO, place.hub if isinstance(place, InFolder) else None)
    edit_text(place, PAGE, "test images", "good images")
    fit(place)
    assert found(place.audit(), "main", "expected mechanism.md as mechanism.json renders")
    place.serve("main", {PAGE: page(card).encode()})
    edit_text(place, "README.md", "## Mechanism", "## Mechanisms")
    fit(place)
    assert found(place.audit(), "main", "expected README.md as its data renders")


def test_an_audit_sees_values_that_are_no_card(card: Mechanism, hub: Path) -> None:
    place = InFolder(hub)
    publish_mechanism(card, REPO, hub)
    edit(place, SOURCE, lambda values: values.update(weights="0" * 64))
    fit(place)
    assert found(place.audit(), "main", "of the weights of main")
    place.serve("main", {SOURCE: card.to_json().replace(b'"accuracy"', b'"invented"')})
    fit(place)
    assert found(place.audit(), "main", "expected a sentence of this version of Prisma; found 'invented'")
    place.serve("main", {SOURCE: None})
    fit(place)
    assert found(place.audit(), "main", "expected a file mechanism.json; found none")
    place.serve("main", {SOURCE: card.to_json(), "mechanism/heads.png": None})
    fit(place)
    assert found(place.audit(), "main", "expected the picture mechanism/heads.png")


def test_the_values_are_written_last(card: Mechanism, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "README.md").write_text("# Mine\n")
    written = write_mechanism(card, run)
    assert written[-1] == run / SOURCE and section(card) in (run / "README.md").read_text()
    (run / SOURCE).write_bytes(b"old")

    def stop(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mechanism_card, "write_atomic", stop)
    with pytest.raises(KeyboardInterrupt):
        write_mechanism(card, run)
    assert (run / SOURCE).read_bytes() == b"old"


def test_a_commit_of_a_hub_is_no_folder_to_write_into(hub: Path, run: Path) -> None:
    expect_own_files(run)
    with pytest.raises(PrismaError, match="a commit of a hub"):
        expect_own_files(InFolder(hub).path("main", "README.md").parent)
    copied = shutil.copytree(InFolder(hub).path("main", "README.md").parent, run.parent / "copied")
    expect_own_files(copied)
