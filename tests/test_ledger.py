"""A change of what a run wrote before is named, on resuming and before publishing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prisma import PrismaError
from prisma.checkpoint import WEIGHTS
from prisma.files import read_json, sha256
from prisma.ledger import Ledger, expect_as_finished, seal
from prisma.publish.plan import plan
from prisma.recipes import recipe
from prisma.run_folder import HASHES, RECIPE, RESULTS, STATE
from prisma.train import train
from tests.conftest import SMALL
from tests.run_edits import accept_changes, without_hashes

FIRST = "checkpoints/step-000001"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def edit_lines(run: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = run / "metrics.jsonl"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of a checkpoint": (lambda run: flip(run / FIRST / WEIGHTS), f"{FIRST}/model.safetensors .*it changed"),
    "a truncated checkpoint": (lambda run: (run / FIRST / WEIGHTS).write_bytes(b"x"), f"{FIRST}/model.safetensors"),
    "a removed checkpoint": (lambda run: shutil.rmtree(run / FIRST), f"{FIRST}/config.json .*found no such file"),
    "a removed config": (lambda run: (run / FIRST / "config.json").unlink(), f"{FIRST}/config.json .*no such file"),
    "an edited probe": (lambda run: flip(run / "probe.safetensors"), "probe"),
    "an edited number": (
        lambda run: edit_lines(run, lambda lines: [lines[0].replace('"loss": 2', '"loss": 1'), *lines[1:]]),
        r"metrics\.jsonl .*it changed",
    ),
    "a removed line": (lambda run: edit_lines(run, lambda lines: lines[:2] + lines[3:]), r"expected step 2 on line 3"),
    "a cut log": (lambda run: edit_lines(run, lambda lines: lines[:3]), "a line for every step from 0 to 5 .*found 3"),
    "a scalar": (lambda run: edit_lines(run, lambda lines: ["3\n", *lines[1:]]), "found 3 on line 1"),
    "no UTF-8": (lambda run: (run / "metrics.jsonl").write_bytes(b'{"step": "\xff"}\n'), "found the byte 0xff at 10"),
    "a removed state": (lambda run: (run / STATE).unlink(), "state.safetensors beside the checkpoints"),
    "a bit of the state": (lambda run: flip(run / STATE), "the state that training wrote .*found it changed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_past_is_named_on_resuming(run: Path, change: str) -> None:
    spoil, words = CHANGES[change]
    (run / RESULTS).unlink()
    spoil(run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(PrismaError, match=words) as error:
        train(recipe("digits").override(SMALL), run, resume=True, progress=False)
    assert "\n" not in str(error.value)
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert after == {path: time for path, time in before.items() if path in after}


@pytest.mark.parametrize("name", ["recipe.json", "results.json", "metrics.jsonl", "curves/loss.svg", "config.json"])
def test_a_changed_file_of_a_finished_run_is_named(run: Path, name: str) -> None:
    path = run / name
    path.write_bytes(path.read_bytes() + b" \n" * (name != "metrics.jsonl"))
    if name == "metrics.jsonl":
        edit_lines(run, lambda lines: [lines[0].replace("{", "{ "), *lines[1:]])
    words = f"expected {name} in the run .* as training wrote it; found it changed: restore it"
    with pytest.raises(PrismaError, match=words):
        plan(run, "lab/tiny")
    with pytest.raises(PrismaError, match=words):
        train(recipe("digits").override(SMALL), run, resume=True, progress=False)


def test_no_hashes_are_accepted_only_of_an_earlier_version(run: Path) -> None:
    results = read_json(run / RESULTS)
    (run / HASHES).unlink()
    with pytest.raises(PrismaError, match=r"expected the hashes of the run's files in .*hashes\.json; found none"):
        plan(run, "lab/tiny")
    without_hashes(run)
    with pytest.warns(UserWarning, match="begun by version 0.1.0, which recorded no hashes"):
        assert plan(run, "lab/tiny").steps
    assert train(recipe("digits").override(SMALL), run, resume=True, progress=False) == results  # warned only once


def test_every_file_is_recorded(run: Path) -> None:
    recorded = read_json(run / HASHES)["files"]
    there = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    assert recorded == {name: sha256(path) for name, path in there.items() if name not in (HASHES, STATE)}
    expect_as_finished(run, read_json(run / RECIPE))
    with pytest.raises(PrismaError, match="found a file that it did not write"):
        expect_as_finished(run, {}, {**recorded, "more.txt": "0"})


def test_only_the_files_of_scheduled_checkpoints_are_recorded(run: Path) -> None:
    recorded = read_json(run / HASHES)
    (run / FIRST / ".DS_Store").write_text("icons")
    (run / "checkpoints" / "step-000003").mkdir()
    (run / "checkpoints" / "step-000003" / WEIGHTS).write_text("weights")
    accept_changes(run)
    assert read_json(run / HASHES) == recorded
    ledger = Ledger(run)
    ledger.add_checkpoints(1)
    assert sorted(ledger.files) == [f"{FIRST}/config.json", f"{FIRST}/{WEIGHTS}"]
    shutil.rmtree(run / "checkpoints" / "step-000003")
    assert plan(run, "lab/tiny").steps


def test_a_ledger_names_the_first_change(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("1")
    ledger = Ledger(tmp_path)
    ledger.add(tmp_path / "a" / "b", tmp_path / "absent")
    ledger.expect_unchanged()
    assert list(ledger.files) == ["a/b"]
    (tmp_path / "a" / "b").write_text("2")
    with pytest.raises(PrismaError, match="expected a/b in the run"):
        ledger.expect_unchanged()


def test_a_seal_covers_header_and_content() -> None:
    assert len({seal({"a": "1"}, "x"), seal({"a": "2"}, "x"), seal({"a": "1"}, "y")}) == 3
    assert seal({"a": "1", "b": "2"}, "x") == seal(json.loads('{"b": "2", "a": "1"}'), "x")
