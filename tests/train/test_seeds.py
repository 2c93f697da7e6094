"""Several seeds: each run is the run alone, whether in a process of its own or side by side."""

from pathlib import Path
from typing import Any

import pytest

from prisma.errors import PrismaError
from prisma.files import read_json
from prisma.run_folder import read_metrics
from prisma.train import Recipe, train
from prisma.train.loop import Job, train_together
from prisma.train.seeds import over_seeds, seeds_in, train_seeds


@pytest.fixture(scope="module")
def short(tiny: Recipe) -> Recipe:
    return tiny.override({"steps": "12", "checkpoint_every": "4"})


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.override({"init_seed": str(seed), "order_seed": str(seed)})


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..3", (0, 1, 2, 3)), ("5", (5,)), ("7, 0..1", (7, 0, 1)), ("4294967295", (2**32 - 1,))]
)
def test_seeds_are_read(text: str, seeds: tuple[int, ...]) -> None:
    assert seeds_in(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "a", "1..", "3..1", "1,1", "0..2,1", "-1", "4294967296", "0..1000", "1.5", "0.. 3"]
)
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(PrismaError, match=r"expected at most 1,000 different seeds from 0 to 4,294,967,295, such as"):
        seeds_in(text)


def test_processes_end_with_the_bits_of_the_runs_alone_whatever_happens_to_others(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)  # here; the other processes draw
    (tmp_path / "s" / "seed-4").mkdir(parents=True)
    (tmp_path / "s" / "seed-4" / "mine").write_text("x")
    settings = {"device": "cpu", "command": "prisma train tiny", "progress": False}
    with pytest.raises(PrismaError, match=r"seed-4.* use another --out"):
        train_seeds(short, tmp_path / "s", (1, 4), **settings)  # type: ignore[arg-type]
    out = tmp_path / "s" / "seed-1"
    train(with_seed(short, 1), tmp_path / "alone", device="cpu", progress=False)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    (found,) = train_seeds(short, tmp_path / "s", (1,), resume=True, **settings)  # type: ignore[arg-type]
    command = "prisma train tiny --set init_seed=1 --set order_seed=1"
    assert (found["seeds"], found["command"]) == ({"init": 1, "order": 1}, command)
    assert found["run"] == read_json(tmp_path / "alone" / "results.json")["run"]


def test_side_by_side_every_run_has_its_folder_and_its_numbers(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is finished stays as it is."""
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    jobs = [Job(with_seed(short, seed), tmp_path / f"{seed}") for seed in (0, 1, 2)]
    train(with_seed(short, 2), tmp_path / "2", device="cpu", progress=False)
    jobs[2].resume = True
    results = train_together(jobs, device="cpu", progress=False)
    for seed, found in enumerate(results):
        alone = tmp_path / f"alone-{seed}"
        expected = train(with_seed(short, seed), alone, device="cpu", progress=False)
        assert found["run"] == expected["run"]
        lines, theirs = (read_metrics(out / "metrics.jsonl") for out in (tmp_path / f"{seed}", alone))
        assert [line["step"] for line in lines] == list(range(13))
        for line, other in zip(lines, theirs, strict=True):
            for score, layers in line.get("heads", {}).items():
                assert layers[0] == pytest.approx(other["heads"][score][0], abs=1e-3)
        for key in ("loss", "test_loss", "train_loss", "weight_norm", "gradient_norm"):
            ours = [line[key] for line in lines if key in line]
            assert ours == pytest.approx([line[key] for line in theirs if key in line], rel=1e-3)
        assert sorted(path.name for path in (tmp_path / f"{seed}" / "checkpoints").iterdir()) == sorted(
            path.name for path in (alone / "checkpoints").iterdir()
        )


def test_runs_side_by_side_differ_in_their_seeds_alone(short: Recipe, tmp_path: Path) -> None:
    first, other = Job(short, tmp_path / "a"), Job(short.override({"lr": "0.1"}), tmp_path / "b")
    with pytest.raises(PrismaError, match="expected runs side by side to differ in their seeds alone"):
        train_together([first, other], progress=False)
    with pytest.raises(PrismaError, match="expected a folder of its own for every run; found one twice"):
        train_together([first, Job(with_seed(short, 1), tmp_path / "a")], progress=False)
    assert not list(tmp_path.iterdir())


def test_the_spread_over_seeds() -> None:
    results = [{"results": [{"name": "test accuracy", "value": x}]} for x in (0.5, 0.7, 0.9)]
    found = over_seeds(results)
    assert found == pytest.approx({"mean": 0.7, "sd": 0.2, "least": 0.5, "largest": 0.9})
    assert over_seeds(results[:1]) == {"mean": 0.5, "sd": 0.0, "least": 0.5, "largest": 0.5}


def test_a_process_that_is_killed_is_a_sentence(short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(function: Any, jobs: Any, at_once: int, lost: Any) -> list[PrismaError]:
        return [lost(job) for job in jobs]

    monkeypatch.setattr("prisma.train.seeds.in_processes", killed)
    with pytest.raises(PrismaError, match=r"trains in .*seed-0 to end by itself; found that it was killed: --resume"):
        train_seeds(short, tmp_path, (0, 1), device="cpu")
