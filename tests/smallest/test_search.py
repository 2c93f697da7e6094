"""A search that really trains: its numbers are those of its runs, and it goes on where it stopped."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prisma.errors import PrismaError
from prisma.recipes import recipe
from prisma.run_folder import read_metrics, read_results
from prisma.smallest import Found, Grid, smallest
from prisma.smallest.search import FRONTIER, SMALLEST
from prisma.train import Recipe, train


@pytest.fixture(scope="module")
def short() -> Recipe:
    return recipe("digits").override({"steps": "24", "checkpoint_every": "6", "warmup": "2", "batch_size": "32"})


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process, without curves."""

    def one_after_the_other(
        function: Callable[[Any], Any], jobs: Sequence[Any], at_once: int, lost: Callable[[Any], PrismaError]
    ) -> list[Any]:
        return [function(job) for job in jobs]

    monkeypatch.setattr("prisma.smallest.search.in_processes", one_after_the_other)
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)


def search(recipe: Recipe, out: Path, budget: float = 600) -> Found:
    grid = Grid(layers=(1,), width=(4, 8), heads=(1,), mlp=(0, 1), patch=(4,))
    return smallest(recipe, 0.12, out, grid=grid, seeds=(0, 1), budget=budget, device="cpu")


def test_its_numbers_are_those_of_its_runs_and_its_command_trains_the_same(short: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "search"
    with pytest.raises(PrismaError, match="budget above 0"):
        search(short, out, budget=0)
    early = search(short, out, budget=1e-9)
    assert not early.complete and len(early.untested) == 4 and early.smallest is None
    found = search(short, out)
    assert found.complete and found.smallest is not None
    for one in found.candidates:
        for seed, accuracy in one.finished.items():
            folder = out / one.name / f"seed-{seed}"
            assert accuracy == next(row["value"] for row in read_results(folder)["results"])
            assert read_results(folder)["parameters"] == one.parameters
        lines = [line for line in read_metrics(out / one.name / "seed-0" / "metrics.jsonl") if "test_loss" in line]
        assert one.accuracy == [line["test_accuracy"] for line in lines if line["step"] <= one.steps][-1]
    assert json.loads((out / SMALLEST).read_text()) == found.to_dict()
    assert (out / FRONTIER).read_bytes().startswith(b"\x89PNG")
    best = found.smallest
    run = out / best.name / "seed-1"
    words = read_results(run)["command"].split()
    given = dict(pair.split("=") for word, pair in pairwise(words) if word == "--set")
    train(short.override(given), tmp_path / "again", device="cpu", progress=False)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert search(short, out).to_dict() == found.to_dict(), "nothing is left to do"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before


def test_a_folder_of_something_else_is_refused(short: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(PrismaError, match=r"expected .* empty"):
        search(short, tmp_path)
    search(short, tmp_path / "new", budget=1e-9)
    with pytest.raises(PrismaError, match=r"expected in .*new a search with this recipe; found one with another"):
        search(short.override({"steps": "30"}), tmp_path / "new")


@pytest.mark.parametrize(
    ("target", "seeds"), [(0.0, (0,)), (1.1, (0,)), (float("nan"), (0,)), (0.9, ()), (0.9, (1, 1))]
)
def test_wrong_numbers_are_a_sentence_and_make_no_folder(
    short: Recipe, tmp_path: Path, target: float, seeds: tuple[int, ...]
) -> None:
    with pytest.raises(PrismaError, match=r"expected (a target above 0 and at most 1|one seed or more)"):
        smallest(short, target, tmp_path / "out", seeds=seeds)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_counts_as_nothing_learned(short: Recipe, tmp_path: Path) -> None:
    wild = short.override({"lr": "1000", "steps": "24", "clip": "1e9"})
    grid = Grid(layers=(1,), width=(8,), heads=(1,), mlp=(0,), patch=(4,))
    found = smallest(wild, 0.5, tmp_path / "out", grid=grid, seeds=(0,), device="cpu")
    assert found.complete and found.smallest is None and found.candidates[0].finished[0] < 0.5
