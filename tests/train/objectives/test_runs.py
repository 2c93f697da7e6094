"""Whole runs of every objective: they resume to the same bits, are published, and nothing calls them accurate."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import prisma
from prisma.checkpoint import read_tensors
from prisma.publish import audit, publish
from prisma.run_folder import read_metrics
from prisma.train import Recipe, train
from prisma.train.stacked import Stacked
from prisma.train.steps import Eager
from tests.train.interrupted import train_until
from tests.train.stacks import flat, run_of
from tests.train.test_loop import hashes

NAMES = ("several", "regression", "varying", "reconstruction", "masked")
MEASURES = {
    "several": ["accuracy", "digit accuracy", "parity accuracy", "loss"],
    "regression": ["r2", "loss"],
    "varying": ["r2", "loss"],
    "reconstruction": ["r2", "loss"],
    "masked": ["r2", "loss"],
}


@pytest.fixture(scope="module", params=NAMES)
def ended(
    request: pytest.FixtureRequest, recipes: Mapping[str, Recipe], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path]:
    recipe, out = recipes[request.param], tmp_path_factory.mktemp(request.param) / "run"
    train(recipe, out, device="cpu", progress=False)
    return recipe, out


def test_a_stopped_run_goes_on_to_the_same_bits(ended: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, whole = ended
    train_until(3, recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True, device="cpu", progress=False)
    assert hashes(tmp_path / "run") == hashes(whole)


def test_checkpoints_hold_the_model_alone_and_the_state_all_that_is_trained(ended: tuple[Recipe, Path]) -> None:
    recipe, out = ended
    loaded, state = prisma.load(out), read_tensors(out / "state.safetensors")[0]
    assert loaded.config == recipe.model and loaded.labels == recipe.objective.names
    weights = {name.removeprefix("weight.") for name in state if name.startswith("weight.")}
    more = {name for name in weights if name.startswith("decoder.")}
    assert weights - more == set(loaded.model.state_dict()) and bool(more) == (recipe.name == "masked")
    logits, acts = prisma.record(loaded.model, torch.zeros(2, 1, 8, 8), "blocks.*.attn.pattern")
    assert logits.shape == (2, recipe.model.n_classes or recipe.model.d_pooled)
    assert acts["blocks.0.attn.pattern"].shape[-1] == recipe.model.n_tokens


def test_every_number_has_its_name(ended: tuple[Recipe, Path]) -> None:
    recipe, out = ended
    line, measures = read_metrics(out / "metrics.jsonl")[-1], MEASURES[recipe.name]
    stated = {key for key in line if key.startswith(("test_", "train_"))}
    assert stated == {f"{split}_{name.replace(' ', '_')}" for split in ("test", "train") for name in measures}
    curves = {path.name for path in (out / "curves").iterdir()}
    assert curves == {"loss.png", "loss.svg", f"{measures[0]}.png", f"{measures[0]}.svg", "dynamics.png"}


def test_it_is_published_and_the_audit_finds_nothing_but_a_change(ended: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, out = ended
    publish(out, "lab/mouse", tmp_path / "hub", progress=False)
    assert audit("lab/mouse", tmp_path / "hub", deep=True) == []
    card = prisma.repository.Published("lab/mouse", tmp_path / "hub").file("README.md").read_text()
    assert f"](curves/{MEASURES[recipe.name][0]}.png)" in card and recipe.objective.explained in card
    assert ("ccuracy" in card) == (recipe.name == "several")
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, flags=re.S))
    assert "argmax" not in code and ("batch_loss" in code) == (recipe.name != "masked")


def test_the_code_of_the_card_computes_the_logged_loss(
    ended: tuple[Recipe, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = ended
    publish(out, "lab/mouse", tmp_path / "hub", progress=False)
    card = prisma.repository.Published("lab/mouse", tmp_path / "hub").file("README.md").read_text()
    _, *blocks = re.findall(r"```python\n(.*?)```", card, flags=re.S)  # the first one reads the Hugging Face Hub
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
    found = re.findall(r"loss at step (\d+): ([\d.]+)", capsys.readouterr().out)
    assert len(found) == (recipe.name != "masked")
    for step, loss in found:
        assert float(loss) == pytest.approx(read_metrics(out / "metrics.jsonl")[int(step)]["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["several", "regression", "reconstruction"])
def test_runs_side_by_side_are_the_runs_alone(recipes: Mapping[str, Recipe], name: str) -> None:
    together, alone = [run_of(recipes[name], seed) for seed in (3, 1)], [run_of(recipes[name], seed) for seed in (3, 1)]
    stacked, eager = Stacked(together), [Eager(run) for run in alone]
    each, found = [way.advance(0, 5) for way in eager], stacked.advance(0, 5)
    for own, losses in zip(each, zip(*found, strict=True), strict=True):
        assert list(losses) == pytest.approx([loss for (loss,) in own], rel=1e-5)
    for way, numbers in zip(eager, stacked.evaluate("test"), strict=True):
        assert numbers == pytest.approx(way.evaluate("test")[0], rel=1e-4, abs=1e-6)
    for mine, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(flat(mine.model), flat(theirs.model), rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_have_the_gradient_of_the_whole(recipes: Mapping[str, Recipe]) -> None:
    for name in NAMES:
        ways = [Eager(run_of(recipes[name].override({"accumulate": n}), 0)) for n in ("1", "4")]
        assert ways[0].measure(2)[0] == pytest.approx(ways[1].measure(2)[0], rel=1e-10)
