"""A run ends when a number has not got better for long enough, says why, and is whole."""

from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.files import read_json, sha256
from prisma.publish import audit, publish
from prisma.run_folder import checkpoint_folders, read_metrics, scheduled_steps
from prisma.train import Recipe, train
from prisma.train.early_stop import EarlyStop
from prisma.train.loop import Job, train_together
from tests.train.interrupted import train_until


def lines(name: str, values: dict[int, float]) -> list[dict[str, float]]:
    return [{"step": step, name: value} for step, value in values.items()]


@pytest.mark.parametrize(
    ("name", "values", "end"),
    [
        ("test_loss", {0: 3, 10: 2, 20: 2, 30: 2.5, 40: 1}, 30),  # as good is none better
        ("test_loss", {0: 3, 10: 2, 20: 2.5, 25: 1.9, 40: 1.95, 45: 2}, 45),
        ("test_accuracy", {0: 0.1, 10: 0.5, 20: 0.4, 30: 0.5}, 30),
        ("test_accuracy", {0: 0.1, 10: 0.5, 20: 0.6, 30: 0.7}, None),
        ("train_loss", {0: 3, 1: 3, 2: 3, 4: 3, 8: 3, 16: 3, 20: 3}, 20),  # in steps, not in checkpoints
    ],
)
def test_the_end_is_where_the_best_is_twenty_steps_ago(
    tiny: Recipe, name: str, values: dict[int, float], end: int | None
) -> None:
    config = tiny.override({"patience": "20", "stop_on": name}).training
    found = lines(name, values)
    early_stop = EarlyStop(config)
    assert next((line["step"] for line in found if early_stop.ends(line)), None) == end
    for i in range(len(found)):  # as after resuming
        later = EarlyStop(config, found[:i])
        assert next((line["step"] for line in found[i:] if later.ends(line)), None) == end or (end or 99) < i * 10
    assert EarlyStop(tiny.training).ends(found[-1]) is None


def test_the_end_is_where_the_accuracy_is_enough(tiny: Recipe) -> None:
    config = tiny.override({"stop_at_accuracy": "0.5", "patience": "20", "stop_on": "test_accuracy"}).training
    reached = lines("test_accuracy", {0: 0.1, 10: 0.4, 15: 0.45, 20: 0.5})
    stuck = lines("test_accuracy", {0: 0.1, 10: 0.1, 20: 0.1, 30: 0.6})
    assert [EarlyStop(config).ends(line) for line in reached[:-1]] == [None] * 3
    assert EarlyStop(config).ends(reached[-1]) == "a test_accuracy of 0.5, which is at least 0.5"
    early_stop = EarlyStop(config)
    assert [bool(early_stop.ends(line)) for line in stuck] == [False, False, True, True], "whichever comes first"
    with pytest.raises(PrismaError, match="an objective with an accuracy for stop_at_accuracy; found reconstruction"):
        tiny.override({"stop_at_accuracy": "0.5", "objective": "reconstruction", "n_classes": "16", "pool": "mean"})


@pytest.fixture(scope="module")
def stuck(tiny: Recipe) -> Recipe:
    """It cannot learn: the loss is best at some early checkpoint."""
    return tiny.override({"lr": "1e-12", "patience": "20", "stop_on": "test_accuracy", "checkpoint_every": "10"})


def test_a_run_that_ends_early_is_finished_and_says_why(
    stuck: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    out = tmp_path / "run"
    results = train(stuck, out, device="cpu", command="prisma train tiny", progress=False)
    best = results["results"][0]["value"]
    stop = {"step": 32, "why": f"no better test_accuracy than {best:.6g}, which was that of step 0, in 32 steps"}
    assert results["steps"] == 32 and results["stopped"] == read_json(out / "recipe.json")["stopped"] == stop
    metrics = read_metrics(out / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(33))
    assert [path.name for path in checkpoint_folders(out)] == [f"step-{s:06d}" for s in (0, 1, 2, 4, 8, 16, 32)]
    train_until(20, stuck, tmp_path / "again")
    assert train(stuck, tmp_path / "again", resume=True, device="cpu", progress=False)["stopped"] == stop
    for name in ("metrics.jsonl", "model.safetensors", "state.safetensors"):
        assert sha256(out / name) == sha256(tmp_path / "again" / name)
    assert train(stuck, out, resume=True, device="cpu", progress=False) == results


def test_side_by_side_each_run_ends_by_itself(stuck: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    jobs = [Job(stuck.override({"init_seed": str(seed)}), tmp_path / str(seed)) for seed in (0, 1)]
    for found in train_together(jobs, device="cpu", progress=False):
        assert found["stopped"]["step"] == found["steps"] < 70


def test_it_is_published_and_audited(tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.override({"lr": "1e-7", "patience": "4", "stop_on": "train_accuracy", "warmup": "0"})
    results = train(recipe, tmp_path / "run", device="cpu", command="prisma train tiny", progress=False)
    assert results["stopped"]["step"] == results["steps"] < 70
    publish(tmp_path / "run", "lab/early", tmp_path / "hub", progress=False)
    assert audit("lab/early", tmp_path / "hub", deep=True) == []
    card = next((tmp_path / "hub").rglob("README.md")).read_text()
    assert f"The run ended early, at step {results['steps']}." in card


def test_a_stop_that_is_no_step_of_the_schedule_is_refused(tmp_path: Path) -> None:
    recipe = {"training": {"steps": 70, "checkpoint_every": 20}}
    assert scheduled_steps(tmp_path, {**recipe, "stopped": {"step": 16}}) == (0, 1, 2, 4, 8, 16)
    for stop in (17, "16", None, 71):
        with pytest.raises(PrismaError, match="expected the training settings of a run in"):
            scheduled_steps(tmp_path, {**recipe, "stopped": {"step": stop}})
