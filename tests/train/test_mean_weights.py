"""The running mean of the weights: its formula, both ways of steps, resuming, and where it is written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prisma.checkpoint import read_checkpoint
from prisma.data import task
from prisma.errors import PrismaError
from prisma.files import read_json, sha256
from prisma.loaded import load
from prisma.publish import publish
from prisma.run_folder import checkpoint_folder, read_metrics
from prisma.train import Recipe, train
from prisma.train.evaluate import evaluate
from prisma.train.mean_weights import mean_of, share_of
from prisma.train.stacked import Stacked
from prisma.train.steps import Eager
from tests.train.interrupted import train_until
from tests.train.stacks import flat, run_of


def test_the_mean_is_the_sum_over_the_weights_of_all_steps(tiny: Recipe) -> None:
    recipe = tiny.override({"ema": "0.5"})
    run = run_of(recipe, 0)
    run = replace(run, mean=mean_of(run.model, recipe.training))
    way, expected = Eager(run), flat(run.model)
    for step in range(12):
        way.advance(step, step + 1)
        decay = min(0.5, (1 + step) / (10 + step))
        assert share_of(recipe.training, step) == 1 - decay
        expected = decay * expected + (1 - decay) * flat(run.model)
    assert run.mean is not None
    torch.testing.assert_close(flat(run.mean), expected, rtol=1e-12, atol=1e-12)
    assert mean_of(run.model, tiny.training) is None


@pytest.mark.parametrize("seeds", [(0,), (3, 1)])
def test_side_by_side_and_resumed_it_is_the_mean_of_each_run_alone(tiny: Recipe, seeds: tuple[int, ...]) -> None:
    recipe = tiny.override({"ema": "0.9", "accumulate": "2"})
    runs = [[run_of(recipe, seed) for seed in seeds] for _ in range(2)]
    together, alone = ([replace(r, mean=mean_of(r.model, recipe.training)) for r in some] for some in runs)
    stacked = Stacked(together)
    stacked.advance(0, 5)
    stacked = Stacked([replace(run, step=5) for run in together])
    stacked.advance(5, 9)
    for way, run, numbers in zip(map(Eager, alone), together, stacked.evaluate("test", mean=True), strict=True):
        way.advance(0, 9)
        assert way.run.mean is not None and run.mean is not None
        torch.testing.assert_close(flat(run.mean), flat(way.run.mean), rtol=1e-5, atol=1e-6)
        assert numbers == pytest.approx(way.evaluate("test", mean=True)[0], rel=1e-5)
        assert not torch.equal(flat(run.mean), flat(run.model))


def test_a_stopped_run_goes_on_to_the_same_bits_and_states_the_numbers_of_both(tiny: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny.override({"ema": "0.9", "steps": "14", "accumulate": "4"}), license="mit")
    train(recipe, tmp_path / "whole", device="cpu", progress=False)
    train_until(11, recipe, tmp_path / "run")
    results = train(recipe, tmp_path / "run", resume=True, device="cpu", progress=False)
    mean = Path("checkpoints/step-000014/ema/model.safetensors")
    for name in (mean, Path("model.safetensors"), Path("metrics.jsonl"), Path("state.safetensors")):
        assert sha256(tmp_path / "run" / name) == sha256(tmp_path / "whole" / name)
    assert mean.as_posix() in read_json(tmp_path / "run" / "hashes.json")["files"]
    model = load(checkpoint_folder(tmp_path / "run", 14) / "ema").model
    loss, accuracy = evaluate(model, *task("digits").inputs("test"))
    line = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (line["ema_test_loss"], line["ema_test_accuracy"]) == (pytest.approx(loss, rel=1e-6), accuracy)
    assert {row["name"]: row["value"] for row in results["results"]}["ema test loss"] == line["ema_test_loss"]
    assert line["ema_test_loss"] != line["test_loss"]
    publish(tmp_path / "run", "lab/ema", tmp_path / "hub", progress=False)
    with (checkpoint_folder(tmp_path / "run", 8) / "ema" / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(PrismaError, match=r"expected checkpoints/step-000008/ema/config.json in the run .* it changed"):
        train(recipe, tmp_path / "run", resume=True, device="cpu", progress=False)
    assert read_checkpoint(tmp_path / "run").header["step"] == "14"
