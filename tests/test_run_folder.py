"""The names of a run's files, its schedule of checkpoints, and mistakes; more of them in `publish/test_plan.py`."""

from pathlib import Path

import pytest

from prisma.checkpoint import WEIGHTS, read_tensors
from prisma.errors import PrismaError
from prisma.files import write_json
from prisma.run_folder import (
    ADDED_FILES,
    checkpoint_folders,
    checkpoint_steps,
    expect_finished,
    final_files,
    is_finished,
    is_run,
    needed_files,
    read_all_metrics,
    read_metrics,
    read_results,
    read_step,
    revision_of,
    scheduled_folders,
    step_in,
)

RECIPE = {"training": {"steps": 6, "checkpoint_every": 100}}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, (0, 1, 2, 4, 8, 10)),
        (64, (0, 1, 2, 4, 8, 16, 32, 64)),
        (512, (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
        (1000, (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 800, 1000)),
        (1001, (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 800, 1000, 1001)),
    ],
)
def test_checkpoints_are_dense_early_then_regular_and_always_at_the_end(steps: int, expected: tuple[int, ...]) -> None:
    assert checkpoint_steps(steps, every=200) == expected


def test_names_of_checkpoints_sort_in_step_order() -> None:
    assert revision_of(128) == "step-000128"
    names = [revision_of(step) for step in (0, 9, 10, 512, 100_000)]
    assert names == sorted(names)


def test_checkpoints_are_folders_of_exact_names_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    others = (
        "step-000004-backup",
        "step-4",
        "step-0000004",
        "step-abcdef",
        "step-\u0661\u0661\u0661\u0661\u0661\u0661",
        f"step-{'1' * 99}",
    )
    for name in (*others, "step-1000000", "step-999999", "step-000008"):
        (folder / name).mkdir(parents=True)
    (folder / "step-000002").write_text("a file")
    (folder / "step-000004.zip").write_text("a file")
    (folder / "step-000001").symlink_to(tmp_path / "absent")
    (folder / "step-000016").symlink_to(folder / "step-000008")
    there = ["step-000008", "step-000016", "step-999999", "step-1000000"]
    assert [path.name for path in checkpoint_folders(tmp_path)] == there
    assert [path.name for path in checkpoint_folders(tmp_path, start=999_999)] == there[2:]


@pytest.mark.parametrize("text", ["", "\u00b2", "\u0664", "-1", " 4", "4.0", "9" * 5000, None, 4])
def test_a_step_is_stated_in_few_plain_digits(text: object) -> None:
    assert step_in("4") == step_in("000004") == 4
    assert step_in(text) is None


@pytest.mark.parametrize(
    ("row", "sentence"),
    [({"n": 0}, "a number of 0 images"), ({"n": -3}, "a number of -3 images"), ({"value": 1.5}, "an accuracy of 1.5")],
)
def test_results_that_no_images_can_give_are_refused(tmp_path: Path, row: dict[str, object], sentence: str) -> None:
    good = {"name": "test accuracy", "value": 0.5, "split": "test", "n": 4}
    write_json(tmp_path / "results.json", {"results": [good], "seeds": {}})
    assert read_results(tmp_path)["results"] == [good]
    write_json(tmp_path / "results.json", {"results": [{**good, **row}], "seeds": {}})
    with pytest.raises(PrismaError, match=rf"expected the results and seeds of a run .*{sentence}\): restore the file"):
        read_results(tmp_path)


def test_the_files_of_a_run_are_those_that_the_trainer_writes(finished_run: Path) -> None:
    files = {path.relative_to(finished_run).as_posix() for path in finished_run.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("checkpoints/")} == {
        *needed_files({}),
        *ADDED_FILES,
        "state.safetensors",
        "hashes.json",
    }
    assert is_run(finished_run) and is_finished(finished_run)
    expect_finished(finished_run)
    assert final_files(finished_run) == (*needed_files({}), *ADDED_FILES)
    wanted = ["step-000000", "step-000001", "step-000002", "step-000004", "step-000006"]
    assert [folder.name for folder in scheduled_folders(finished_run, RECIPE)] == wanted
    assert [folder.name for folder in checkpoint_folders(finished_run)] == wanted
    assert [line["step"] for line in read_all_metrics(finished_run, 6)] == list(range(7))
    folder = checkpoint_folders(finished_run)[-1]
    run_id = read_tensors(folder / WEIGHTS)[1]["run"]
    assert read_step(finished_run, folder, run_id).header == {"step": "6", "run": run_id}
    with pytest.raises(PrismaError, match=rf"expected weights of run other in .*; found those of run {run_id}"):
        read_step(finished_run, folder, "other")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert not is_run(tmp_path) and not is_finished(tmp_path)
    with pytest.raises(PrismaError, match=r"expected a run folder at .*absent; found none"):
        expect_finished(tmp_path / "absent")
    with pytest.raises(PrismaError, match=r"expected a finished run at .*; found no results.json"):
        expect_finished(tmp_path)


@pytest.mark.parametrize("training", [None, {}, {"steps": 6}, {"steps": "6", "checkpoint_every": 1}])
def test_a_recipe_without_a_schedule_is_refused(finished_run: Path, training: object) -> None:
    with pytest.raises(PrismaError, match=r"expected the training settings of a run in .*recipe.json; found others"):
        scheduled_folders(finished_run, {"training": training})


def test_reading_what_is_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match="found no such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\nnonsense\n')
    with pytest.raises(PrismaError, match=r"expected JSON in line 2 of .*metrics.jsonl; found something else"):
        read_metrics(tmp_path / "metrics.jsonl")


TORN: dict[str, tuple[bytes, str]] = {
    "torn": (b'{"step": 1, "lo', "JSON in line 2 of"),
    "scalar": (b"7\n", "a JSON object on every line of .*; found 7 on line 2"),
    "not UTF-8": (b'{"step": "\xe9"}\n', "text in UTF-8 in line 2 of .*; found the byte 0xe9 at 10"),
    "NaN": (b'{"step": NaN}\n', "JSON .*the number NaN"),
    "twice": (b'{"step": 1, "step": 2}\n', "JSON .*the name 'step' twice"),
    "an empty line": (b"\n", "JSON in line 2 of"),
}


@pytest.mark.parametrize(("line", "sentence"), TORN.values(), ids=TORN)
def test_a_damaged_line_is_named_by_its_number(line: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0}\n' + line)
    with pytest.raises(PrismaError, match=rf"expected {sentence}"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_schedule_of_hundreds_of_millions_is_refused_before_it_is_made(tmp_path: Path) -> None:
    for steps, every in ((4 * 10**8, 1), (10**8, 1), (100, 0), (100, -1), (2**70, 2**60)):
        with pytest.raises(
            PrismaError, match=r"^expected (steps|checkpoint_every|the number of checkpoints).* to be from"
        ):
            checkpoint_steps(steps, every)
    recipe = {"training": {"steps": 10**8, "checkpoint_every": 1}}
    with pytest.raises(PrismaError, match=r"training settings of a run.*from 0 to 10,000; found 100000000"):
        scheduled_folders(tmp_path, recipe)
