"""Weights that have not the loss that the run states are not published, whatever their hashes say."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from prisma.checkpoint import WEIGHTS, read_checkpoint, read_tensors
from prisma.data import task
from prisma.errors import PrismaError
from prisma.publish import publish
from prisma.publish.recomputing import batch_problems, loss_problems
from prisma.run_folder import read_metrics, read_recipe
from prisma.train.evaluate import evaluate
from tests.run_edits import accept_changes

STEP = "checkpoints/step-000004"


def damage(run: Path) -> None:
    """Zero the last tenth of a checkpoint's bytes, and let every hash agree with it."""
    path = run / STEP / WEIGHTS
    tensors, header = read_tensors(path)
    last = max(tensors, key=lambda name: tensors[name].numel())
    save_file({**tensors, last: tensors[last] * 0}, path, metadata=header)
    accept_changes(run)


def lines(run: Path, change: dict[str, float], step: int) -> None:
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[step] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    accept_changes(run)


def test_damaged_weights_are_refused_with_both_values(run: Path, tmp_path: Path) -> None:
    stated = read_metrics(run / "metrics.jsonl")[4]["test_loss"]
    damage(run)
    data, checkpoint = task("digits"), read_checkpoint(run / STEP)
    found, _ = evaluate(checkpoint.model, *data.inputs("test"))
    with pytest.raises(PrismaError) as error:
        publish(run, "lab/tiny", tmp_path / "hub", progress=False)
    assert f"expected test_loss {stated}, as in metrics.jsonl; found weights that have {found:.6g}" in str(error.value)
    assert STEP in str(error.value)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("name", ["test_loss", "test_accuracy"])
def test_edited_metrics_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    lines(run, {name: 0.5}, 4)
    with pytest.raises(PrismaError, match=rf"expected {name} 0.5, as in metrics\.jsonl"):
        publish(run, "lab/tiny", tmp_path / "hub", progress=False)


def test_edited_results_are_refused(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    row = next(row for row in results["results"] if row["name"] == "test accuracy")
    stated, row["value"] = row["value"], 0.9999
    (run / "results.json").write_text(json.dumps(results))
    accept_changes(run)
    with pytest.raises(PrismaError, match=rf"expected test accuracy {stated} in results.json, .* found 0.9999"):
        publish(run, "lab/tiny", tmp_path / "hub", progress=False)


def test_a_run_whose_data_cannot_be_built_is_published_with_a_word_about_it(run: Path, tmp_path: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["task"]["sha256"] = "0" * 64
    (run / "recipe.json").write_text(json.dumps(recipe))
    accept_changes(run)
    with pytest.warns(UserWarning, match="cannot build the data of the run"):
        assert publish(run, "lab/tiny", tmp_path / "hub", progress=False).changed


def test_the_numbers_of_every_checkpoint_are_what_its_weights_compute(run: Path) -> None:
    data, recipe = task("digits"), read_recipe(run)
    for line in read_metrics(run / "metrics.jsonl"):
        folder = run / "checkpoints" / f"step-{line['step']:06d}"
        if folder.is_dir():
            checkpoint = read_checkpoint(folder)
            for split in ("test", "train"):
                assert not list(loss_problems(checkpoint, line, data, split))
                other = {**line, f"{split}_loss": line[f"{split}_loss"] * 1.01}
                assert len(list(loss_problems(checkpoint, other, data, split))) == 1
            assert not list(batch_problems(checkpoint, line, data, recipe, line["step"]))
            assert list(batch_problems(checkpoint, {**line, "loss": 0.1}, data, recipe, line["step"]))
