import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.optim import AdamW

from prisma.errors import PrismaError
from prisma.run_folder import checkpoint_folder
from prisma.train import Recipe
from prisma.train.loop import initial_model
from prisma.train.optimizer import make_optimizer
from prisma.train.provenance import describe
from prisma.train.resume import expect_startable, load_state, remove_checkpoints, resume, save_state, start
from prisma.vit import ViT

CPU = torch.device("cpu")


def test_a_run_begins_only_where_nothing_is(tiny: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "tiny"
    out.mkdir(parents=True)
    (out / ".recipe.json.partial").write_text("{")  # what a kill leaves
    expect_startable(out)
    start(out, describe(tiny, CPU, ""))
    assert [path.name for path in out.iterdir()] == ["recipe.json"]
    with pytest.raises(PrismaError, match=r"expected a new or empty folder at .*; found 1 entries; use --resume"):
        expect_startable(out)


def test_a_run_is_resumed_only_where_it_is(tiny: Recipe, tmp_path: Path) -> None:
    description = describe(tiny, CPU, "")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PrismaError, match=r"expected a run to resume at .*; found no recipe\.json"):
            resume(folder, description)
    start(tmp_path / "run", description)
    resume(tmp_path / "run", description)
    with pytest.raises(PrismaError, match=r"to have model\.n_heads=4; found 2; choose another --out"):
        resume(tmp_path / "run", describe(tiny.override({"n_heads": "4"}), CPU, ""))
    (tmp_path / "run" / "recipe.json").write_text("{")
    with pytest.raises(PrismaError, match="expected JSON"):
        resume(tmp_path / "run", description)


def test_another_environment_is_noted_once(tiny: Recipe, tmp_path: Path) -> None:
    out, description = tmp_path / "run", describe(tiny, CPU, "")
    start(out, description)
    elsewhere = {**description, "environment": {**description["environment"], "torch": "9.9"}, "command": "again"}
    for _ in range(2):
        resume(out, elsewhere)
    found = json.loads((out / "recipe.json").read_text())
    assert found == {
        **description,
        "resumed": [{"environment": elsewhere["environment"], "git": description["git"]}],
    }


def test_resuming_removes_the_checkpoints_from_a_step_on(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    folder, elsewhere = tmp_path / "run" / "checkpoints", tmp_path / "elsewhere"
    shutil.move(folder / "step-000016", elsewhere)
    (folder / "step-000016").symlink_to(elsewhere)
    (folder / "step-000016.zip").write_text("mine")
    (folder / "step-000016-backup").mkdir()
    remove_checkpoints(tmp_path / "run", 16)
    assert len(list(elsewhere.iterdir())) == 2
    (folder / "step-000016.zip").unlink()
    (folder / "step-000016-backup").rmdir()
    found = sorted(folder.iterdir())
    assert found == [checkpoint_folder(tmp_path / "run", step) for step in (0, 1, 2, 4, 8)]
    assert found[-1].name == "step-000008"


def test_a_million_steps_come_after_the_steps_before(tmp_path: Path) -> None:
    for step in (200_000, 999_999, 1_000_000, 1_200_000):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    remove_checkpoints(tmp_path, 1_000_000)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-200000", "step-999999"]


def trained(recipe: Recipe, updates: int) -> tuple[ViT, AdamW]:
    model = initial_model(recipe.model, seed=0)
    optimizer = make_optimizer(model, recipe.training)
    for seed in range(updates):
        update(model, optimizer, seed)
    return model, optimizer


def update(model: ViT, optimizer: AdamW, seed: int) -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_the_next_update_is_bitwise_the_same_after_a_round_trip(tiny: Recipe, tmp_path: Path, updates: int) -> None:
    model, optimizer = trained(tiny, updates)
    save_state(tmp_path / "state", model, optimizer, updates, "run")
    other = initial_model(tiny.model, seed=9)
    fresh = make_optimizer(other, tiny.training)
    assert load_state(tmp_path / "state", other, fresh, "run") == updates
    update(model, optimizer, updates)
    update(other, fresh, updates)
    for (name, x), y in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y), name


def test_the_bytes_depend_on_the_state_alone(tiny: Recipe, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_state(tmp_path / name, *trained(tiny, 2), 2, "run")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_run_a_cut_file_and_none_are_refused(tiny: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "state"
    model, optimizer = trained(tiny, 1)
    with pytest.raises(PrismaError, match="found no such file"):
        load_state(path, model, optimizer, "run")
    save_state(path, model, optimizer, 1, "run")
    with pytest.raises(PrismaError, match=r"expected the state of run other in .*; found that of run"):
        load_state(path, model, optimizer, "other")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PrismaError, match="truncated"):
        load_state(path, model, optimizer, "run")


def test_the_state_of_another_architecture_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    model, optimizer = trained(tiny.override({"d_mlp": "0"}), 1)
    save_state(tmp_path / "state", model, optimizer, 1, "run")
    with pytest.raises(PrismaError, match=r"lacks weight\.blocks\.0\.ln2\.bias"):
        load_state(tmp_path / "state", *trained(tiny, 1), "run")
