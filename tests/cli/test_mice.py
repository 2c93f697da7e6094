"""Training from the command line: mistakes are told before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prisma.train import Recipe
from tests import processes
from tests.cli.commands import command_on_a_full_disk
from tests.cli.running import Prisma, one_sentence


def test_mice_lists_every_recipe(prisma: Prisma) -> None:
    code, out, _ = prisma("mice", "--json")
    assert code == 0
    assert {"digits", "induction"} <= {row["name"] for row in json.loads(out)}
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
