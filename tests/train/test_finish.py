"""What a finished run states of its end."""

from pathlib import Path

from prisma.files import read_json
from prisma.run_folder import read_metrics
from prisma.train import Recipe


def test_a_run_that_trained_to_its_end_states_no_stop(tiny: Recipe, whole: Path) -> None:
    results, last = read_json(whole / "results.json"), read_metrics(whole / "metrics.jsonl")[-1]
    assert results["steps"] == last["step"] == tiny.training.steps and "stopped" not in results
    assert {row["name"]: row["value"] for row in results["results"]} == {
        f"{split} {kind}": last[f"{split}_{kind}"] for split in ("test", "train") for kind in ("loss", "accuracy")
    }
    assert "stopped" not in read_json(whole / "recipe.json")
