"""Publishing: what a reader gets, twice, conflicts, kills at every moment, a full disk, two at once."""

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download

import prisma
from prisma.checkpoint import CONFIG, WEIGHTS, read_tensors
from prisma.errors import PrismaError
from prisma.publish import Report, audit, card, preview, publish, things
from prisma.publish.commits import File
from prisma.publish.folder_hub import FolderHub
from prisma.publish.plan import Plan, plan
from prisma.repository import Published
from prisma.run_folder import revision_of
from prisma.train.config import TrainConfig
from prisma.train.optimizer import learning_rate
from tests import processes
from tests.publish.disturbing import OPERATIONS, before_operation, die
from tests.run_edits import accept_changes

STEPS = (0, 1, 2, 4, 6)
LABELS = [revision_of(step) for step in STEPS]


def listing(hub: Path) -> dict[str, str]:
    """Every file and link of a hub -> its bytes or target. Locks are not content."""
    paths = [path for path in hub.rglob("*") if ".locks" not in path.parts]
    return {
        str(path.relative_to(hub)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_symlink() or path.is_file()
    }


def send(run: Path, hub: Path, *, replace: bool = False) -> Report:
    return publish(run, "lab/tiny", hub, replace=replace, progress=False)


def drop_last_checkpoint(run: Path) -> None:
    """The run as if it had been told to end at step 4."""
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["training"]["steps"] = 4
    training = TrainConfig(**recipe["training"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:5]]
    lines = [{**line, "lr": learning_rate(training, line["step"])} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = json.loads((run / "results.json").read_text())
    for row in results["results"]:
        row["value"] = lines[-1][row["name"].replace(" ", "_")]
    (run / "results.json").write_text(json.dumps({**results, "steps": 4}))
    (run / "recipe.json").write_text(json.dumps(recipe))
    shutil.rmtree(run / "checkpoints" / LABELS[-1])
    shutil.copy(run / "checkpoints" / LABELS[-2] / WEIGHTS, run / WEIGHTS)
    accept_changes(run)


def test_what_is_read_is_what_the_run_holds(run: Path, hub: Path) -> None:
    folders = {label: run / "checkpoints" / label for label in LABELS} | {"main": run}
    for revision, folder in folders.items():
        for name in (CONFIG, WEIGHTS):
            path = hf_hub_download("lab/tiny", name, revision=revision, cache_dir=hub, local_files_only=True)
            assert Path(path).read_bytes() == (folder / name).read_bytes()
        loaded = prisma.load("lab/tiny", revision=revision, hub=hub)
        tensors, _ = read_tensors(folder / WEIGHTS)
        assert all(torch.equal(x, tensors[name]) for name, x in loaded.model.state_dict().items())
    assert Published("lab/tiny", hub).file("README.md").read_text() == preview(run, "lab/tiny")


def test_it_is_read_offline(hub: Path) -> None:
    code = (
        "import prisma; print(prisma.load('lab/tiny').config.n_layers, prisma.load('lab/tiny', 'step-000002').labels)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.startswith("1 ('0',"), done.stderr


def test_the_report_says_what_was_done(run: Path, tmp_path: Path) -> None:
    report = send(run, tmp_path / "new")
    assert report.changed
    assert report.revisions == tuple(LABELS)
    assert report.made == (*LABELS, "main")
    assert report.to_dict()["commit"] == (tmp_path / "new/models--lab--tiny/refs/main").read_text()
    assert not audit("lab/tiny", tmp_path / "new")


def test_publishing_twice_changes_nothing(run: Path, hub: Path) -> None:
    def times() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in hub.rglob("*")}

    send(run, hub)
    before, files = times(), listing(hub)
    report = send(run, hub)
    assert not report.changed
    assert report.made == report.moved == report.repaired == report.removed == ()
    assert times() == before
    assert listing(hub) == files


def test_a_label_on_other_bytes_is_refused_unless_told_to_replace(run: Path, hub: Path) -> None:
    before = listing(hub)
    path = run / "metrics.jsonl"
    path.write_text(path.read_text().replace("{", "{ ", 1))
    accept_changes(run)
    there = FolderHub(Published("lab/tiny", hub)).labels()["main"]
    with pytest.raises(
        PrismaError, match=f"expected main of lab/tiny to serve the files of this run; found commit {there}, with other"
    ):
        send(run, hub)
    assert listing(hub) == before
    report = send(run, hub, replace=True)
    assert report.moved == ("main",)
    assert report.commit == (hub / "models--lab--tiny/refs/main").read_text() != there
    assert Published("lab/tiny", hub).file(CONFIG, there).is_file()  # the old commit is readable by id
    assert not audit("lab/tiny", hub)


def test_labels_that_the_run_does_not_have_are_refused_and_removed_by_replace(run: Path, hub: Path) -> None:
    drop_last_checkpoint(run)
    with pytest.raises(PrismaError, match="step-000006"):
        send(run, hub)
    report = send(run, hub, replace=True)
    assert report.removed == ("step-000006",)
    assert report.moved == ("main",)
    assert not audit("lab/tiny", hub)


def test_a_better_template_renders_the_card_again(run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = card.render
    for module in ("plan", "main_files"):
        monkeypatch.setattr(f"prisma.publish.{module}.render", lambda *facts: render(*facts) + "\nMore.\n")
    assert send(run, hub).moved == ("main",)
    assert Published("lab/tiny", hub).file("README.md").read_text().endswith("More.\n")
    assert not audit("lab/tiny", hub)


def test_damage_is_repaired(run: Path, hub: Path) -> None:
    files = listing(hub)
    blob = Published("lab/tiny", hub).file(WEIGHTS, "step-000002").resolve()
    blob.write_bytes(blob.read_bytes()[:-4] + b"\0\0\0\1")
    assert audit("lab/tiny", hub)
    assert send(run, hub).repaired == ("step-000002",)
    assert listing(hub) == files


@pytest.mark.parametrize("repo", ["tiny", "a/b/c", "lab/.tiny", "lab/ti--ny", "lab/tiny.git", "lab/tiny-", "../x/y"])
def test_a_name_that_the_hub_would_refuse_is_refused(run: Path, tmp_path: Path, repo: str) -> None:
    with pytest.raises(PrismaError, match="expected OWNER/NAME"):
        publish(run, repo, tmp_path / "hub", progress=False)
    assert not (tmp_path / "hub").exists()


def test_an_unfit_run_writes_nothing(run: Path, tmp_path: Path) -> None:
    (run / "results.json").unlink()
    with pytest.raises(PrismaError, match="finished run"):
        send(run, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_hub_that_is_a_file_is_one_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("mine")
    with pytest.raises(PrismaError, match="expected a folder hub"):
        send(run, tmp_path / "hub")


def test_two_publishers_at_once(run: Path, hub: Path) -> None:
    shutil.rmtree(hub / "models--lab--tiny")  # to publish what is there already needs no lock
    with (hub / ".locks/models--lab--tiny/publish.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(PrismaError, match="only process to publish lab/tiny"):
            send(run, hub)


def count_operations(run: Path, hub: Path, names: Sequence[str] = OPERATIONS) -> int:
    """How many operations a publish into an empty hub takes."""
    with pytest.MonkeyPatch.context() as patch:
        done = before_operation(patch, 0, die, names)
        send(run, hub)
    return len(done)


def publish_planned(ready: Plan, run: Path, hub: Path, killed_before: int, begun: Event) -> None:
    """What a child process does: publish, and kill itself before an operation."""
    patch = pytest.MonkeyPatch()
    patch.setattr(things, "plan", lambda *_, **__: ready)
    before_operation(patch, killed_before, die)
    begun.set()
    send(run, hub)


def publishing_child(ready: Plan, run: Path, hub: Path, killed_before: int = 0) -> ForkServerProcess:
    """A process that is publishing now."""
    begun = processes.context().Event()
    child = processes.context().Process(target=publish_planned, args=(ready, run, hub, killed_before, begun))
    child.start()
    assert begun.wait(timeout=120), "it did not begin"
    return child


def expect_only_verified_labels(hub: Path) -> None:
    """Every label that exists serves whole, right weights; what is not there yet is all that an audit may miss."""
    writer = FolderHub(Published("lab/tiny", hub))
    labels = writer.labels()
    for label, commit in labels.items():
        assert not writer.damaged(commit)
        loaded = prisma.load("lab/tiny", revision=label, hub=hub)
        assert loaded.model
    if labels:
        assert {finding.revision for finding in audit("lab/tiny", hub)} <= {"main"} - set(labels)


@pytest.fixture
def planned(run: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan, made once: here and in a child, publishing begins with it."""
    ready = plan(run, "lab/tiny")
    monkeypatch.setattr(things, "plan", lambda *_, **__: ready)
    return ready


def test_a_kill_before_any_operation_leaves_verified_labels_and_is_completed(
    planned: Plan, run: Path, finished_hub: Path, tmp_path: Path
) -> None:
    total = count_operations(run, tmp_path / "counted")
    complete = listing(finished_hub)
    assert listing(tmp_path / "counted") == complete
    for moment in [*sorted(random.Random(0).sample(range(1, total), total // 9)), total]:  # any phase of any label
        hub = tmp_path / f"hub-{moment}"
        assert processes.ended(publishing_child(planned, run, hub, killed_before=moment)) == -signal.SIGKILL, moment
        if (hub / "models--lab--tiny").exists():
            expect_only_verified_labels(hub)
        send(run, hub)
        assert listing(hub) == complete, moment
        shutil.rmtree(hub)
    assert processes.ended(publishing_child(planned, run, tmp_path / "whole", killed_before=total + 1)) == 0


def test_a_kill_at_ten_random_times(planned: Plan, run: Path, finished_hub: Path, tmp_path: Path) -> None:
    """Killed from outside, into one hub: each goes on where the one before was stopped."""
    hub, moments = tmp_path / "hub", random.Random(0)
    started = time.perf_counter()
    send(run, tmp_path / "timed")
    takes = time.perf_counter() - started
    for _ in range(10):
        child = publishing_child(planned, run, hub)
        time.sleep(moments.uniform(0, takes))
        child.kill()
        processes.ended(child)
        if (hub / "models--lab--tiny").exists():
            expect_only_verified_labels(hub)
    send(run, hub)
    assert listing(hub) == listing(finished_hub)


@pytest.mark.usefixtures("planned")
def test_a_full_disk_is_one_sentence_and_labels_stay(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writes = ("fsync", "replace", "symlink")
    for moment in range(1, count_operations(run, tmp_path / "counted", writes) + 1, 7):
        hub = tmp_path / f"hub-{moment}"
        with monkeypatch.context() as patch:
            before_operation(patch, moment, full, writes)
            with pytest.raises(PrismaError, match="No space left on device"):
                send(run, hub)
        assert not list(hub.rglob("*partial*"))
        if (hub / "models--lab--tiny").exists():
            expect_only_verified_labels(hub)
        send(run, hub)
        assert not audit("lab/tiny", hub)


def test_bytes_that_do_not_read_back_get_no_label(run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses a bit: the commit is refused before its label is made."""
    honest = FolderHub._place

    def lossy(writer: FolderHub, file: File, target: Path) -> None:
        honest(writer, file, target)
        if target.parent.name == "blobs" and target.stat().st_size > 1000:
            data = bytearray(target.read_bytes())
            data[-1] ^= 1
            target.write_bytes(data)

    monkeypatch.setattr(FolderHub, "_place", lossy)
    with pytest.raises(PrismaError, match="read back"):
        send(run, hub.with_name("other"))
    assert not list((hub.with_name("other") / "models--lab--tiny/refs").iterdir())
