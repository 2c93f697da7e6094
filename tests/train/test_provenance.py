import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prisma.data import task
from prisma.data.dsprites import IMAGES, TRAIN
from prisma.data.task import Split
from prisma.errors import PrismaError
from prisma.recipes import recipe
from prisma.train import Recipe
from prisma.train.provenance import describe, expect_same, git_state

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_the_recipe_file_names_all_that_the_weights_depend_on(tiny: Recipe) -> None:
    found = describe(tiny.override({"order_seed": "7"}), CPU, "prisma train tiny")
    assert json.loads(json.dumps(found)) == found
    assert found["seeds"] == {"init": 0, "order": 7}
    assert found["task"]["sha256"] == task("digits").sha256
    assert found["task"]["images"] == {"train": 1437, "test": 360}
    assert found["training"]["lr"] == tiny.training.lr and found["model"]["d_model"] == 16
    assert found["command"] == "prisma train tiny"
    assert found["license"] is None
    licensed = describe(replace(tiny, license="mit"), CPU, "prisma train tiny")
    assert licensed["license"] == "mit" and licensed["run"] == describe(tiny, CPU, "")["run"]
    assert "datasets" not in found
    stated = describe(replace(tiny, datasets=("lab/digits",)), CPU, "")
    assert stated["datasets"] == ["lab/digits"] and stated["run"] == describe(tiny, CPU, "")["run"]
    with pytest.raises(PrismaError, match="which has no owner"):
        replace(tiny, datasets=("digits",))
    assert found["environment"]["torch"] == torch.__version__.split("+")[0]
    assert found["environment"]["device"] == "cpu"
    assert all(found["environment"].values())


def test_the_run_is_named_after_its_settings_and_not_after_the_machine_or_the_time(tiny: Recipe) -> None:
    name = describe(tiny, CPU, "a")["run"]
    assert len(name) == 16 and name == describe(replace(tiny), CPU, "b")["run"]
    others = [describe(tiny.override({key: "3"}), CPU, "a")["run"] for key in ("init_seed", "order_seed", "turn")]
    assert len({name, *others}) == 4


def test_the_settings_that_differ_are_named(tiny: Recipe) -> None:
    ours, theirs = (describe(tiny.override({"steps": n, "lr": lr}), CPU, "") for n, lr in (("90", "1"), ("80", "2")))
    expect_same(ours, {**ours, "command": "another", "environment": {}}, Path("run"))
    both = r"to have training\.steps=90; found 80; and training\.lr=1\.0, found 2\.0; choose another --out"
    with pytest.raises(PrismaError, match=both):
        expect_same(theirs, ours, Path("run"))
    other = describe(recipe("induction"), CPU, "")
    with pytest.raises(PrismaError, match=r"to have recipe='tiny'; found 'induction'; and .* and \d+ more; choose"):
        expect_same(other, ours, Path("run"))


def test_git_state_is_that_of_the_checkout_that_tracks_the_code(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=240
        )
        return done.stdout.strip()

    (tmp_path / "__init__.py").write_text("")
    assert git_state(tmp_path) is None
    git("init", "-q")
    assert git_state(tmp_path) is None  # somebody's checkout, but not of this code
    git("add", "__init__.py")
    git("commit", "-qm", "first")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "__init__.py").write_text("changed")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


@pytest.mark.parametrize("path", sorted((ROOT / "hub_cards").glob("*/recipe.json")), ids=lambda path: path.parent.name)
def test_the_runs_of_the_repository_are_those_of_their_recipes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new setting, or a new word for an old one, must not give a published run another id."""
    empty = {name: Split(torch.empty(0), torch.empty(n)) for name, n in (("train", TRAIN), ("test", IMAGES - TRAIN))}
    monkeypatch.setitem(vars(task("dsprites")), "splits", empty)  # only their number is asked for
    found = json.loads(path.read_text())
    wanted = describe(recipe(found["recipe"]), torch.device("cpu"), "")
    identity = ("run", "task", "model", "training", "optimizer")
    assert {key: wanted[key] for key in identity} == {key: found[key] for key in identity}
