"""Weights are told apart by their header, by what they hold, and by what they compute."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from prisma.checkpoint import WEIGHTS, read_tensors
from prisma.data import task
from prisma.publish import Finding
from prisma.publish.folder_source import FolderSource
from prisma.publish.main_files import Main, read_main
from prisma.publish.recomputing import CLOSE
from prisma.publish.weights_check import WeightsCheck, header_problems, probe_of
from prisma.repository import Published
from prisma.run_folder import METRICS, PROBE


@pytest.fixture
def main(hub: Path) -> Main:
    source = FolderSource(Published("lab/tiny", hub))
    return read_main(source, source.labels()["main"], [])


def check_of(main: Main, run: Path) -> WeightsCheck:
    return WeightsCheck(main, read_tensors(run / PROBE)[0]["images"], losses=True)


def test_headers_state_step_and_run() -> None:
    header = {"step": "4", "run": "r"}
    assert list(header_problems(header, 4, "r")) == list(header_problems(header, None, None)) == []
    assert list(header_problems(header, 2, "s")) == [
        "expected weights of step-000002; found a header that states step 4",
        "expected weights of run s; found a header that states run r",
    ]
    assert list(header_problems({}, 2, None)) == [
        "expected weights of step-000002; found a header that states step none"
    ]


def test_the_weights_of_training_have_its_losses(main: Main, run: Path) -> None:
    check = check_of(main, run)
    assert main.manifest
    for entry in main.manifest.checkpoints:
        assert list(check.problems(entry.revision, run / "checkpoints" / entry.revision, entry.step, entry)) == []
    assert list(check.problems("main", run, 6, None)) == []
    assert list(check.equal("step-000006")) == []


def test_a_wrong_loss_is_named_with_both_values(main: Main, run: Path) -> None:
    lines = [
        {**line, "test_loss": line["test_loss"] * (1 + 3 * CLOSE)} if "test_loss" in line else line
        for line in main.metrics or ()
    ]
    check = check_of(replace(main, metrics=lines), run)
    (problem,) = check.problems("step-000004", run / "checkpoints/step-000004", 4, None)
    assert problem == f"expected test_loss {lines[4]['test_loss']}, as in metrics.jsonl; found weights that have 2.6117"
    nearly = [
        {**line, "test_loss": line["test_loss"] * (1 + CLOSE / 3)} if "test_loss" in line else line
        for line in main.metrics or ()
    ]
    check = check_of(replace(main, metrics=nearly), run)
    assert list(check.problems("step-000004", run / "checkpoints/step-000004", 4, None)) == []


@pytest.mark.parametrize(("name", "step", "label"), [("loss", 4, "step-000004"), ("train_accuracy", 6, "main")])
def test_other_edited_numbers_are_found(main: Main, run: Path, name: str, step: int, label: str) -> None:
    lines = [{**line, name: 0.9} if line["step"] == step else line for line in main.metrics or ()]
    folder = run if label == "main" else run / "checkpoints" / label
    (problem,) = check_of(replace(main, metrics=lines), run).problems(label, folder, step, None)
    assert problem.startswith(f"expected {name} 0.9")


def test_zeroed_weights_compute_something_else(main: Main, run: Path) -> None:
    """The last quarter of the values of a file is zero: nothing but what they compute tells."""
    path = run / "checkpoints/step-000004" / WEIGHTS
    tensors, header = read_tensors(path)
    for name in sorted(tensors)[-6:]:
        tensors[name].zero_()
    save_file(tensors, path, metadata=header)
    assert main.manifest
    entry = next(entry for entry in main.manifest.checkpoints if entry.step == 4)
    problems = list(check_of(main, run).problems("step-000004", path.parent, 4, entry))
    assert any("expected test_loss" in problem for problem in problems)
    assert any("expected the manifest's logits" in problem for problem in problems)


def test_who_is_to_blame_for_equal_weights(main: Main, run: Path) -> None:
    """A copy of the last step, a copy of an early one, and a main that is not the last."""
    folders = {label: run / "checkpoints" / label for label in ("step-000000", "step-000002", "step-000006")}
    check = WeightsCheck(main, None, losses=False)
    for label, of in (
        ("main", "step-000006"),
        ("a", "step-000006"),
        ("step-000006", "step-000006"),
        ("b", "step-000002"),
    ):
        list(check.problems(label, folders[of], None, None))
    list(check.problems("c", folders["step-000002"], None, None))
    assert list(check.equal("step-000006")) == [
        Finding("a", "expected weights of its own; found those of step-000006, the last step"),
        Finding("c", "expected different weights in each revision; found the same as in b"),
    ]
    check = WeightsCheck(main, None, losses=False)
    for label, of in (("main", "step-000000"), ("step-000000", "step-000000"), ("step-000006", "step-000006")):
        list(check.problems(label, folders[of], None, None))
    assert list(check.equal("step-000006")) == [
        Finding("main", "expected the weights of step-000006; found those of step-000000")
    ]


def test_the_probe_is_that_of_the_task(run: Path, tmp_path: Path) -> None:
    problems = list[str]()
    images = probe_of(run / PROBE, task("digits"), problems)
    assert problems == []
    assert images is not None
    assert len(images) == 64
    probe_of(run / PROBE, task("circle-7"), problems)
    assert problems == ["expected the probe images of the task circle-7 in probe.safetensors; found others"]
    save_file({"x": images}, tmp_path / PROBE)
    assert probe_of(tmp_path / PROBE, None, problems) is None
    assert problems[1:] == ["expected images and labels in probe.safetensors; found x"]
    shutil.copy(run / METRICS, tmp_path / PROBE)
    assert probe_of(tmp_path / PROBE, None, problems) is None
    assert "expected whole safetensors weights at probe.safetensors" in problems[2]
