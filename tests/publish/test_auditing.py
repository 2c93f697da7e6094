"""An audit finds what is wrong behind a label, and nothing where nothing is wrong; `faults` has the forgeries."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prisma.checkpoint import CONFIG, WEIGHTS, read_tensors
from prisma.errors import PrismaError
from prisma.publish import audit, publish
from prisma.publish.auditing import MOST, examine
from prisma.publish.commits import Commit, File
from prisma.publish.folder_hub import FolderHub
from prisma.repository import MANIFEST, Published
from tests.run_edits import accept_changes

STEP, OTHER = "step-000002", "step-000004"


def mouse(hub: Path) -> Published:
    return Published("lab/tiny", hub)


def label(hub: Path, name: str) -> Path:
    return mouse(hub).folder / "refs" / name


def serve(hub: Path, revision: str, **changed: bytes) -> None:
    """A commit like the revision's with other bytes in some files, in its place: whole, and wrong."""
    writer = FolderHub(mouse(hub))
    commit = writer.labels()[revision]
    names = writer.read_back(commit)
    files = {name: (writer.mouse.snapshot(commit) / name).read_bytes() for name in names} | {
        {"config": CONFIG, "weights": WEIGHTS, "manifest": MANIFEST}[key]: data for key, data in changed.items()
    }
    made = Commit(tuple(File.of(name, data) for name, data in files.items()))
    with writer.writing():
        writer.put(revision, made, "")


def weights_of(hub: Path, revision: str, folder: Path, **header: str) -> bytes:
    """The bytes of a revision's weights under another header."""
    tensors, old = read_tensors(mouse(hub).file(WEIGHTS, revision))
    save_file(tensors, folder / "weights", metadata={**old, **header})
    return (folder / "weights").read_bytes()


def manifest(hub: Path, change: Callable[[list[dict[str, object]]], object]) -> bytes:
    entries = mouse(hub).checkpoints()
    change(entries)
    values = json.loads(mouse(hub).file(MANIFEST).read_text())
    return json.dumps({**values, "checkpoints": entries}).encode()


def corrupt(hub: Path) -> None:
    blob = mouse(hub).file(WEIGHTS, STEP).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)


def truncate(hub: Path) -> None:
    blob = mouse(hub).file(WEIGHTS, STEP).resolve()
    blob.write_bytes(blob.read_bytes()[:-100])


def duplicate(hub: Path) -> None:
    """The fault of other suites: final weights behind an early label, here even under an honest-looking header."""
    serve(hub, STEP, weights=weights_of(hub, OTHER, hub.parent, step="2"))


def state_step(hub: Path, step: str) -> None:
    serve(hub, STEP, weights=weights_of(hub, STEP, hub.parent, step=step))


def swap_final(hub: Path) -> None:
    serve(hub, "main", weights=weights_of(hub, STEP, hub.parent))


def wrong_fingerprint(hub: Path) -> None:
    def change(entries: list[dict[str, object]]) -> None:
        entries[2]["fingerprint"] = entries[3]["fingerprint"]

    serve(hub, "main", manifest=manifest(hub, change))


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "corrupted blob": (corrupt, STEP, "model.safetensors changed"),
    "truncated blob": (truncate, STEP, "model.safetensors changed"),
    "truncated weights": (truncate, STEP, "whole safetensors weights"),
    "missing blob": (lambda hub: mouse(hub).file(WEIGHTS, STEP).resolve().unlink(), STEP, "model.safetensors changed"),
    "missing file": (lambda hub: mouse(hub).file(CONFIG, STEP).unlink(), STEP, "its list of files changed"),
    "moved label": (lambda hub: shutil.copy(label(hub, OTHER), label(hub, STEP)), STEP, "as in the manifest"),
    "wrong step": (
        lambda hub: shutil.copy(label(hub, OTHER), label(hub, STEP)),
        STEP,
        "found a header that states step 4",
    ),
    "twin": (lambda hub: shutil.copy(label(hub, OTHER), label(hub, STEP)), OTHER, "found the same as in step-000002"),
    "duplicate weights": (duplicate, OTHER, "found the same as in step-000002"),
    "a step in no digits": (lambda hub: state_step(hub, "\u00b2"), STEP, "a header that states step \u00b2"),
    "a long step": (lambda hub: state_step(hub, "9" * 5000), STEP, "a header that states step 999"),
    "other weights": (duplicate, STEP, "of SHA-256"),
    "other logits": (duplicate, STEP, "logits"),
    "dangling label": (lambda hub: label(hub, STEP).write_text("0" * 40), STEP, "found none"),
    "a label of no commit": (lambda hub: label(hub, STEP).write_text("nonsense"), STEP, "40 hex digits"),
    "no main": (lambda hub: label(hub, "main").unlink(), "main", "publishing was not finished"),
    "main is not the last": (swap_final, "main", "expected the weights of step-000006; found those of step-000002"),
    "wrong fingerprint": (wrong_fingerprint, STEP, "logits"),
    "no probe": (lambda hub: mouse(hub).file("probe.safetensors").unlink(), "main", "probe.safetensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(hub: Path, fault: str) -> None:
    make, revision, problem = FAULTS[fault]
    make(hub)
    findings = audit("lab/tiny", hub)
    assert any(finding.revision == revision and problem in finding.problem for finding in findings), findings
    assert all("\n" not in finding.problem for finding in findings)


def test_a_fault_of_one_step_is_found_at_that_step_alone(hub: Path) -> None:
    corrupt(hub)
    assert {finding.revision for finding in audit("lab/tiny", hub)} == {STEP}


def test_unlabelled_commits_are_no_fault(hub: Path) -> None:
    made = Commit((File.of("a", b"left by a kill"),))
    with (writer := FolderHub(mouse(hub))).writing():
        writer.put("step-000009", made, "")
        writer.unlabel("step-000009")
    (mouse(hub).folder / "snapshots" / ("0" * 40)).mkdir()
    assert audit("lab/tiny", hub) == []


def test_a_hub_copied_without_links_is_whole(hub: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(hub, tmp_path / "copied")
    assert not any(path.is_symlink() for path in copied.rglob("*"))
    assert audit("lab/tiny", copied) == []


def test_what_is_not_there_is_one_sentence(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=r"lab/tyni is not published in the hub .* lab/tiny"):
        audit("lab/tyni", hub)
    with pytest.raises(PrismaError, match="expected a folder hub"):
        audit("lab/tiny", tmp_path / "absent")


def test_a_later_library_may_round_otherwise(hub: Path) -> None:
    """Fingerprints that differ in their last digits are of the same weights."""

    def shake(entries: list[dict[str, object]]) -> None:
        for entry in entries:
            rows = torch.tensor(entry["fingerprint"])
            entry["fingerprint"] = (rows * (1 + 1e-5)).tolist()

    serve(hub, "main", manifest=manifest(hub, shake))
    assert audit("lab/tiny", hub) == []


def test_the_mouse_of_another_seed_is_not_taken_for_this_one(
    run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are whole, finite and of the right step, but of other values."""
    monkeypatch.setattr("prisma.publish.things.expect_stated_numbers", lambda *_: None)
    path = run / "checkpoints" / STEP / WEIGHTS
    tensors, header = read_tensors(path)
    save_file({name: x + 0.1 for name, x in tensors.items()}, path, metadata=header)
    accept_changes(run)
    publish(run, "lab/other", hub, progress=False)
    serve(hub, STEP, weights=Published("lab/other", hub).file(WEIGHTS, STEP).read_bytes())
    assert {finding.revision for finding in audit("lab/tiny", hub)} == {STEP}


def test_it_says_how_much_it_looked_at(hub: Path) -> None:
    found = examine("lab/tiny", hub)
    assert (found.findings, found.checkpoints, found.has_manifest) == ((), 5, True)


def test_several_mice_are_audited_one_by_one(run: Path, hub: Path) -> None:
    publish(run, "lab/twin", hub, progress=False)
    label(hub, STEP).unlink()
    findings = audit(["lab/tiny", "lab/twin"], hub)
    assert findings == audit("lab/t*", hub)
    assert [finding.revision for finding in findings] == [f"lab/tiny@{STEP}"]
    with pytest.raises(PrismaError, match=r"whose names begin as lab/x\*; found none"):
        audit("lab/x*", hub)


def test_names_and_labels_of_strangers_are_printed_safely(hub: Path) -> None:
    """A label that turns the direction of text and moves the cursor, and manifests of any size and depth."""
    name = "v\u202e\x1b[2J" + "x" * 100
    shutil.copy(label(hub, STEP), label(hub, name))
    assert all(text.isprintable() for finding in audit("lab/tiny", hub) for text in finding.to_dict().values())
    for text in (
        "[" * 10_000,
        '{"format": 2, "run": "' + "\u202e" * 100_000 + '", "steps": [], "checkpoints": []}',
        "9" * 9999,
    ):
        serve(hub, "main", manifest=text.encode())
        findings = audit("lab/tiny", hub)
        assert findings
        assert all(len(finding.problem) <= 4000 and finding.problem.isprintable() for finding in findings)


def test_so_many_labels_are_looked_at(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST == 10_000
    monkeypatch.setattr("prisma.publish.auditing.MOST", 4)
    findings = audit("lab/tiny", hub)
    assert findings[0].problem == "expected at most 4 labels; found 6: those beyond were not looked at"
    assert len(findings) <= 5
