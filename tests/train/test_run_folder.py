import json
import shutil
from pathlib import Path

import pytest
import torch

from prisma.data import task
from prisma.data.task import Split
from prisma.errors import PrismaError
from prisma.train import Recipe, is_finished
from prisma.train.provenance import describe
from prisma.train.run_folder import checkpoint_folder, expect_run, forget_from, probe_images, start, write_probe

CPU = torch.device("cpu")


def test_probe_images_take_the_classes_in_turn() -> None:
    labels = torch.tensor([2, 2, 0, 1, 1, 0, 2, 1, 0])
    split = Split(torch.arange(9.0)[:, None, None, None], labels)
    probe = probe_images(split, 7)
    assert probe.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert probe.images.flatten().tolist() == [2, 3, 0, 5, 4, 1, 8]
    assert probe_images(split, 64).labels.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize("name", ["digits", "induction"])
def test_every_task_has_a_probe_of_all_its_classes(name: str) -> None:
    probe = probe_images(task(name).splits["test"])
    n = len(task(name).labels)
    assert len(probe.images) == 64 and probe.labels[:n].tolist() == list(range(n))


def test_a_run_begins_only_where_nothing_is(tiny: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "tiny"
    out.mkdir(parents=True)
    (out / ".recipe.json.partial").write_text("{")  # what a kill leaves
    start(out, describe(tiny, CPU, ""))
    assert [path.name for path in out.iterdir()] == ["recipe.json"]
    with pytest.raises(PrismaError, match=r"expected a new or empty folder at .*, found 1 entries; use --resume"):
        start(out, describe(tiny, CPU, ""))


def test_the_probe_is_written_once(tmp_path: Path) -> None:
    write_probe(tmp_path, task("digits"))
    before = (tmp_path / "probe.safetensors").stat().st_mtime_ns
    write_probe(tmp_path, task("digits"))
    assert (tmp_path / "probe.safetensors").stat().st_mtime_ns == before


def test_a_run_goes_on_only_where_it_is(tiny: Recipe, tmp_path: Path) -> None:
    description = describe(tiny, CPU, "")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PrismaError, match=r"expected a run to resume at .*, found no recipe\.json"):
            expect_run(folder, description)
    start(tmp_path / "run", description)
    expect_run(tmp_path / "run", description)
    with pytest.raises(PrismaError, match=r"has model\.n_heads=2, and this recipe has 4; choose another --out"):
        expect_run(tmp_path / "run", describe(tiny.override({"n_heads": "4"}), CPU, ""))
    (tmp_path / "run" / "recipe.json").write_text("{")
    with pytest.raises(PrismaError, match="expected JSON"):
        expect_run(tmp_path / "run", description)


def test_going_on_in_another_environment_is_noted_once(tiny: Recipe, tmp_path: Path) -> None:
    out, description = tmp_path / "run", describe(tiny, CPU, "")
    start(out, description)
    elsewhere = {**description, "environment": {**description["environment"], "torch": "9.9"}, "command": "again"}
    for _ in range(2):
        expect_run(out, elsewhere)
    found = json.loads((out / "recipe.json").read_text())
    assert found == {
        **description,
        "resumed": [{"environment": elsewhere["environment"], "git": description["git"]}],
    }


def test_forgetting_removes_the_checkpoints_from_a_step_on(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    forget_from(tmp_path / "run", 16)
    found = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert found == [checkpoint_folder(tmp_path / "run", step) for step in (0, 1, 2, 4, 8)]
    assert found[-1].name == "step-000008"


def test_a_run_is_finished_when_its_results_are_there(whole: Path, tmp_path: Path) -> None:
    assert is_finished(whole)
    assert not is_finished(tmp_path)
