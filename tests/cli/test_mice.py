"""Training from the command line: mistakes are told before anything is written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.train import Recipe
from tests import processes
from tests.cli.commands import command_on_a_full_disk
from tests.cli.running import Prisma, one_sentence
from tests.recipes.test_own import TEXT


def test_mice_lists_every_recipe(prisma: Prisma) -> None:
    code, out, _ = prisma("mice", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert {"digits", "induction", "dsprites-tiny-full", "dsprites-medium-attn"} <= set(rows)
    for row in rows.values():
        assert {"task", "layers", "heads", "d_model", "attention_only", "parameters", "expected_accuracy"} <= set(row)
    assert (rows["digits"]["parameters"], rows["digits"]["attention_only"]) == (69_130, False)
    assert (rows["dsprites-base-attn"]["layers"], rows["dsprites-base-attn"]["attention_only"]) == (2, True)
    assert (rows["dsprites-base-attn"]["task"], rows["dsprites-base-attn"]["expected_accuracy"]) == ("dsprites", 0.685)
    assert "digits" in prisma("mice")[1]


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["train", "digit"], "digits", "'digit'"),
        (["train", "digits", "--set", "stepz=3"], "steps", "stepz"),
        (["train", "digits", "--set", "steps=many"], "steps", "many"),
        (["train", "digits", "--set", "n_heads=7"], "n_heads", "d_model"),
        (["train", "digits", "--out", "full"], "full", "resume"),
        (["train", "digits", "--out", "absent", "--resume"], "absent", "resume"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str, found: str) -> None:
    err = mistake(*command)
    assert expected in err
    assert found in err


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    out, stderr = tmp_path / "run", tmp_path / "stderr"
    arguments = ["train", "digits", "--set", "steps=3", "--set", "warmup=1", "--out", str(out)]
    child = processes.context().Process(target=command_on_a_full_disk, args=(arguments, stderr, 20_000))
    child.start()
    assert processes.ended(child) == 1
    assert one_sentence(stderr.read_text()).startswith("prisma: could not write")
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("model.safetensors"))


def test_the_advice_to_resume_repeats_the_settings(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prisma.train.train", stopped)
    _, _, err = prisma("train", "digits", "--set", "steps=900", "--out", "mine")
    assert "prisma train digits --set steps=900 --out mine --resume continues from here" in err


def test_a_licence_is_part_of_the_command_and_of_the_recipe(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Recipe] = []

    def stopped(recipe: Recipe, *_: object, **__: object) -> None:
        given.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr("prisma.train.train", stopped)
    _, _, err = prisma("train", "digits", "--license", "cc-by-4.0")
    assert "prisma train digits --license cc-by-4.0 --out runs/digits --resume continues from here" in err
    prisma("train", "digits")
    assert [recipe.license for recipe in given] == ["cc-by-4.0", "mit"]
    _, _, err = prisma("train", "digits", "--dataset", "lab/digits", "--dataset", "lab/more")
    assert "prisma train digits --dataset lab/digits --dataset lab/more --out runs/digits --resume continues" in err
    assert given[-1].datasets == ("lab/digits", "lab/more")


SHORT = ("--set", "steps=3", "--set", "warmup=1", "--set", "batch_size=8")


def test_seeds_get_a_run_each_and_are_summed_up(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    code, out, err = prisma("train", "digits", "--seeds", "7", *SHORT, "--out", "runs", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [run["seeds"] for run in found["runs"]] == [{"init": 7, "order": 7}]
    assert found["test accuracy"]["sd"] == 0 and Path("runs/seed-7/results.json").is_file()
    code, out, _ = prisma("train", "digits", "--seeds", "7", *SHORT, "--out", "runs", "--resume")
    assert code == 0 and "test accuracy over 1 seeds" in out and "The runs are in runs." in out


def test_a_table_prints_both_accuracies(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    short = recipe("digits").override({"steps": "3", "warmup": "1", "batch_size": "8"})
    monkeypatch.setattr("prisma.recipes.tables.TABLES", {"t": (replace(short, published_accuracy=0.999),)})
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    code, out, err = prisma("train", "--table", "t", "--out", "runs")
    assert code == 0, err
    header, row = out.splitlines()
    assert header.split() == [
        "recipe",
        "parameters",
        "steps",
        "seeds",
        "accuracy",
        "least",
        "published",
        "reached",
        "seconds",
    ]
    assert row.split()[0] == "digits" and row.split()[6:8] == ["0.999", "no"]
    assert Path("runs/digits/seed-0/results.json").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "expected a recipe; or --table without a recipe and its options"),
        (["digits", "--table", "dsprites"], "expected a recipe; or --table without a recipe and its options"),
        (["--table", "dsprites", "--set", "steps=3"], "expected a recipe; or --table without a recipe"),
        (["--table", "imagenet"], "there is no table 'imagenet'; the nearest: dsprites"),
        (["digits", "--seeds", "3..1"], "expected at most 1,000 different seeds from 0 to 4,294,967,295, such as"),
        (["digits", "--seeds", "0", "--wandb"], "expected --wandb with one run; found --seeds"),
        (["digits", "--seeds", "0", "--tensorboard"], "expected --tensorboard with one run; found --seeds"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(prisma: Prisma, words: list[str], sentence: str) -> None:
    code, out, err = prisma("train", *words)
    assert code != 0 and out == "" and sentence in " ".join(err.split())
    assert not Path("runs").exists()


def test_a_file_is_trained_like_a_recipe_of_the_package(
    prisma: Prisma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    (tmp_path / "my_recipe.py").write_text(TEXT)
    code, out, err = prisma("train", str(tmp_path / "my_recipe.py"), "--set", "steps=3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["recipe"], found["steps"]) == ("mine", 3) and Path("runs/mine/results.json").is_file()
    assert found["command"] == f"prisma train {tmp_path / 'my_recipe.py'} --set steps=3"
