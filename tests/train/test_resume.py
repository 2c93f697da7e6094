import ast
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.optim import AdamW

from prisma import load
from prisma.errors import PrismaError
from prisma.publish.plan import plan
from prisma.run_folder import checkpoint_folder
from prisma.train import Recipe, train
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
    with pytest.raises(
        PrismaError, match=r"to have model\.n_heads=4; found 2; and model\.d_head=4, found 8; choose another --out"
    ):
        resume(tmp_path / "run", describe(tiny.override({"n_heads": "4"}), CPU, ""))
    (tmp_path / "run" / "recipe.json").write_text("{")
    with pytest.raises(PrismaError, match="expected JSON"):
        resume(tmp_path / "run", description)


COMMAND = "prisma train digits --set lr=0.01"
SETTINGS = "in Python with recipe.override({'lr': '0.01'})"


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (COMMAND, f"`{COMMAND} --out OUT --resume`, {SETTINGS}"),
        (f"{COMMAND} --set 'head=$(rm -rf ~); x'", f"`{COMMAND} --set 'head=$(rm -rf ~); x' --out OUT --resume`, "),
        ("prisma train", f": {SETTINGS}"),  # what Python records
        (f"{COMMAND}; rm -rf ~", f": {SETTINGS}"),
        (f"{COMMAND} --out elsewhere", f": {SETTINGS}"),
        (f"rm -rf ~ {COMMAND}", f": {SETTINGS}"),
        (f"{COMMAND}\x1b[2J\n", f": {SETTINGS}"),
        (f"{COMMAND}{'0' * 10_000}", f": {SETTINGS}"),
        ("prisma train digits '", f": {SETTINGS}"),
        ("prisma train --resume", f": {SETTINGS}"),
        (None, f": {SETTINGS}"),
        (["prisma"], f": {SETTINGS}"),
    ],
)
def test_a_refusal_says_how_the_run_was_begun(tiny: Recipe, tmp_path: Path, recorded: object, said: str) -> None:
    """The command is only named if it trains this recipe; what else a recorded command would do is never advised."""
    digits, out = replace(tiny, name="digits"), tmp_path / "a run"
    start(out, {**describe(digits.override({"lr": "0.01"}), CPU, ""), "command": recorded})
    with pytest.raises(PrismaError) as error:
        resume(out, describe(digits, CPU, ""))
    found = str(error.value).removeprefix(f"expected the run in {out} to have training.lr=0.003; found 0.01; ")
    expected = said.replace("OUT", f"'{out}'") if said.startswith("`") else said.removeprefix(": ")
    assert found.startswith(f"choose another --out, or resume it as it was begun: {expected}")
    assert found.isprintable() and len(str(error.value)) < 500


def test_the_settings_that_a_refusal_names_resume_the_run(tiny: Recipe, tmp_path: Path) -> None:
    own = tiny.override({"lr": "0.01", "n_heads": "4", "d_mlp": "0", "image_size": "8,8"})
    start(tmp_path / "run", describe(own, CPU, ""))
    with pytest.raises(PrismaError) as error:
        resume(tmp_path / "run", describe(tiny, CPU, ""))
    said = str(error.value).partition("recipe.override(")[2].removesuffix(")")
    resume(tmp_path / "run", describe(tiny.override(ast.literal_eval(said)), CPU, ""))


def lost(run: Path) -> None:
    (run / "recipe.json").unlink()


def emptied(run: Path) -> None:
    (run / "recipe.json").write_bytes(b"")


def a_folder(run: Path) -> None:
    lost(run)
    (run / "recipe.json").mkdir()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("damage", [lost, emptied, a_folder])
def test_a_run_without_its_recipe_gets_one_advice(
    whole: Path, tiny: Recipe, tmp_path: Path, damage: Callable[[Path], None], finished: bool
) -> None:
    """From resuming, from training anew and from publishing, and it can be followed."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    damage(run)
    if not finished:
        (run / "results.json").unlink()
    works = (
        lambda: train(tiny, run, resume=True, progress=False),
        lambda: train(tiny, run, progress=False),
        lambda: plan(run, "lab/tiny"),
    )
    for work in works:
        with pytest.raises(PrismaError) as error:
            work()
        last = str(error.value).rpartition("what is left: its 9 checkpoints can still be loaded, the last from ")[2]
        assert re.match(r"expected (a file|JSON) .*recipe\.json; found ", str(error.value))
        assert "restore the file, or train into another folder" in str(error.value)
        assert load(last).config == tiny.model


def test_an_empty_recipe_without_checkpoints_and_a_folder_of_others(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(b"")
    for resuming in (True, False):
        with pytest.raises(PrismaError, match="train into another folder; what is left: no checkpoint"):
            train(tiny, tmp_path, resume=resuming, progress=False)
    (tmp_path / "recipe.json").rename(tmp_path / "thesis.tex")
    for resuming in (True, False):
        with pytest.raises(PrismaError, match="found 1 entries, and no run to resume; use another --out"):
            train(tiny, tmp_path, resume=resuming, progress=False)


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
