"""A run is checked in full before anything is written."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prisma.checkpoint import WEIGHTS, read_tensors
from prisma.errors import PrismaError
from prisma.publish.commits import Commit
from prisma.publish.manifest import Manifest
from prisma.publish.plan import Plan, plan
from prisma.repository import MANIFEST
from tests.run_edits import accept_changes

LAST = "checkpoints/step-000006"


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None, **header: str) -> None:
    tensors, old = read_tensors(path)
    change(tensors)
    save_file(tensors, path, metadata={**old, **header})


def edit(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["readout.head.weight"][0, 0] = float("inf")


def shift(tensors: dict[str, torch.Tensor]) -> None:
    tensors["readout.head.weight"] += 1


def main_of(planned: Plan) -> Commit:
    """What `main` will hold in a folder hub, whose ids are hashes of the files."""
    return planned.main({step.label: step.commit.id for step in planned.steps})


def test_a_run_becomes_a_commit_per_checkpoint_and_main_last(run: Path) -> None:
    planned = plan(run, "lab/tiny")
    assert [step.label for step in planned.steps] == [f"step-{step:06d}" for step in (0, 1, 2, 4, 6)]
    names = {file.name for file in main_of(planned).files}
    assert names == {
        "README.md", "checkpoints.json", "config.json", "metrics.jsonl", "model.safetensors", "probe.safetensors",
        "recipe.json", "results.json", "curves/loss.png", "curves/loss.svg", "curves/accuracy.png",
        "curves/accuracy.svg", "curves/dynamics.png",
    }  # fmt: skip
    for step in planned.steps:
        assert [file.name for file in step.commit.files] == ["config.json", "model.safetensors"]


def test_the_plan_is_a_function_of_the_run(run: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(run, tmp_path / "elsewhere"))
    first, second = plan(run, "lab/tiny"), plan(there, "lab/tiny")
    assert main_of(first).id == main_of(second).id
    assert first.card == second.card


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (lambda run: shutil.rmtree(run), "expected a run folder"),
    "unfinished": (lambda run: (run / "results.json").unlink(), "expected a finished run .* no results.json"),
    "no curve": (lambda run: (run / "curves/loss.svg").unlink(), "expected curves/loss.svg"),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), "expected the 5 checkpoints .* found 0"),
    "a missing checkpoint": (lambda run: shutil.rmtree(run / "checkpoints/step-000002"), "missing: step-000002"),
    "a checkpoint too many": (
        lambda run: (run / "checkpoints/step-000003").mkdir(),
        "not in the schedule: step-000003",
    ),
    "odd settings": (lambda run: edit(run / "recipe.json", {"training": {"pace": 1}}), "training settings of a run"),
    "truncated": (lambda run: (run / LAST / WEIGHTS).write_bytes(b"\x08"), "whole safetensors weights"),
    "wrong step": (lambda run: rewrite(run / LAST / WEIGHTS, step="4"), "weights of step-000006 .* those of step 4"),
    "no step": (lambda run: rewrite(run / LAST / WEIGHTS, step=""), "weights of step-000006"),
    "a step in no digits": (lambda run: rewrite(run / LAST / WEIGHTS, step="\u00b2"), "weights of step-000006"),
    "a long step": (lambda run: rewrite(run / LAST / WEIGHTS, step="9" * 5000), "weights of step-000006"),
    "another run": (lambda run: rewrite(run / LAST / WEIGHTS, run="other"), "those of run other"),
    "infinite": (lambda run: rewrite(run / LAST / WEIGHTS, poison), r"finite weights .* readout.head.weight"),
    "not the last": (lambda run: rewrite(run / LAST / WEIGHTS, shift), "final weights .* step-000006"),
    "two configs": (
        lambda run: (run / LAST / "config.json").write_text((run / "config.json").read_text().replace('"0"', '"zero"')),
        "the same config.json",
    ),
    "broken metrics": (lambda run: (run / "metrics.jsonl").write_text("{"), "JSON in line 1 of .*metrics.jsonl"),
    "broken recipe": (lambda run: (run / "recipe.json").write_text("{"), "expected JSON in .*recipe.json"),
    "a list of results": (lambda run: (run / "results.json").write_text("[]"), "JSON object in .*results.json"),
    "foreign probe": (lambda run: save_file({"x": torch.zeros(1)}, run / "probe.safetensors"), "probe images"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_fit_to_be_published_is_one_sentence(run: Path, mistake: str) -> None:
    spoil, sentence = MISTAKES[mistake]
    spoil(run)
    with pytest.raises(PrismaError, match=sentence) as error:
        plan(run, "lab/tiny")
    assert "\n" not in str(error.value)


def test_the_same_weights_at_two_steps_are_refused(run: Path) -> None:
    shutil.copy(run / "checkpoints/step-000001" / WEIGHTS, run / "checkpoints/step-000002" / WEIGHTS)
    rewrite(run / "checkpoints/step-000002" / WEIGHTS, step="2")
    with pytest.raises(PrismaError, match="found equal weights at 1 and 2"):
        plan(run, "lab/tiny")


def test_files_that_are_no_part_of_a_run_are_not_sent(run: Path) -> None:
    before = main_of(plan(run, "lab/tiny")).id
    (run / "notes.txt").write_text("not for the public")
    (run / "checkpoints/.step-000009.partial").mkdir()
    assert main_of(plan(run, "lab/tiny")).id == before


def test_the_manifest_states_what_every_file_is(run: Path) -> None:
    planned = plan(run, "lab/tiny")
    main = main_of(planned)
    source = main.file(MANIFEST).source
    assert isinstance(source, bytes)
    manifest = Manifest.parse(source)
    assert manifest.steps == (0, 1, 2, 4, 6)
    assert manifest.run == json.loads((run / "recipe.json").read_text())["run"]
    assert {record.name for record in manifest.files} == {file.name for file in main.files} - {MANIFEST}
    for entry, step in zip(manifest.checkpoints, planned.steps, strict=True):
        assert entry.commit == step.commit.id
        assert entry.files == step.commit.records
        for record in entry.files:
            path = run / "checkpoints" / entry.revision / record.name
            git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout
            assert (record.oid, record.size) == (git.strip(), path.stat().st_size)
            assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_metrics_with_a_hole_are_refused(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(PrismaError, match="expected a line for every step from 0 to 6"):
        plan(run, "lab/tiny")


def test_a_run_of_an_earlier_version_lacks_the_pictures_that_were_added(run: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected curves/dynamics\.png in the run .* found no such file"):
        (run / "curves/dynamics.png").unlink()
        plan(run, "lab/tiny")
    accept_changes(run)
    names = {file.name for file in plan(run, "lab/tiny").files}
    assert "curves/loss.png" in names and "curves/dynamics.png" not in names
