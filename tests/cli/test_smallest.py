"""`prisma smallest`: what it prints, and the sentences for what it cannot do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prisma.smallest.halving import Trial, halve
from tests.cli.running import Prisma

SIZES = ("--layers", "1", "--width", "4,8,12", "--heads", "1", "--mlp", "0", "--patch", "16", "--seeds", "0,1")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of training: a model is right with its width / 10, at most always."""

    def train(found: object, out: Path, until: float, device: str, trials: list[Trial]) -> list[float]:
        return [min(1.0, trial.candidate.recipe.model.d_model / 10) for trial in trials]

    monkeypatch.setattr("prisma.smallest.search._train", train)
    assert halve


def test_it_prints_the_frontier_the_smallest_and_its_command(prisma: Prisma, trained: None) -> None:
    code, out, err = prisma("smallest", "circle", "--target", "0.9", *SIZES)
    assert code == 0
    lines = out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["1l-d4-h1-m0-p16", "1,444", "0.4000", "1", "fails"],
        ["1l-d8-h1-m0-p16", "2,956", "0.8000", "1", "fails"],
        ["1l-d12-h1-m0-p16", "4,596", "1.0000", "2", "smallest"],
    ]
    assert lines[4] == (
        "The smallest with 0.9 or more for every seed is 1l-d12-h1-m0-p16: 4,596 weights. Every smaller one was "
        "trained to its end and failed."
    )
    assert lines[5] == (
        "Its command: prisma train circle --set stop_at_accuracy=0.9 --set n_layers=1 --set d_model=12 --set n_heads=1 "
        "--set d_mlp=0 --set patch_size=16"
    )
    assert lines[6] == "The search is in runs/smallest-circle."
    assert "3 models after 4,000 steps: the most accurate is 1l-d12-h1-m0-p16 with 1.000; 2 go on" in err


def test_its_command_has_the_settings_that_were_given(
    prisma: Prisma, trained: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = prisma("smallest", "circle", "--target", "0.9", *SIZES, "--set", "steps=900", "--set", "lr=0.01")
    assert (
        "train circle --set steps=900 --set lr=0.01 --set stop_at_accuracy=0.9 --set n_layers=1 --set d_model=12" in out
    )

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prisma.smallest.search._train", stopped)
    _, _, err = prisma("smallest", "circle", "--target", "0.9", *SIZES, "--set", "steps=900", "--out", "other")
    assert err.strip().endswith(
        "prisma smallest circle --target 0.9 --seeds 0,1 --layers 1 --width 4,8,12 --heads 1 --mlp 0 --patch 16 "
        "--set steps=900 --out other continues from here"
    )


def test_json_is_what_the_folder_has(prisma: Prisma, trained: None, tmp_path: Path) -> None:
    code, out, _ = prisma("smallest", "circle", "--target", "1", "--budget", "60", "--out", "here", "--json", *SIZES)
    assert code == 0
    found = json.loads(out)
    assert found == json.loads((tmp_path / "here" / "smallest.json").read_text())
    assert found["smallest"]["settings"]["d_model"] == "12" and found["complete"] is True


def test_where_none_reaches_the_target_it_says_so(prisma: Prisma, trained: None) -> None:
    sizes = [size if size != "4,8,12" else "4,8" for size in SIZES]
    _, out, _ = prisma("smallest", "circle", "--target", "0.9", *sizes)
    assert "No model reached 0.9 with every seed. All were trained to their end." in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "there is no recipe 'nothing'; the nearest: "),
        (("circle", "--target", "2"), "expected a target above 0 and at most 1"),
        (("circle", "--budget", "0"), "a budget above 0; found 0.99, 0"),
        (("circle", "--seeds", "x"), "expected at most 1,000 different seeds"),
        (("circle", "--width", "a"), "expected whole numbers separated by commas for width"),
        (("circle", "--heads", "7"), "expected sizes that make a model for the recipe circle; found none"),
        (("circle", "--out", "full"), "empty"),
    ],
)
def test_mistakes_are_one_sentence(mistake: Callable[..., str], arguments: tuple[str, ...], words: str) -> None:
    assert words in mistake("smallest", *arguments)
