"""The card: facts from the run's files alone, no gap, nothing injected, and code that runs."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from prisma.checkpoint import read_checkpoint
from prisma.errors import PrismaError
from prisma.publish import card, preview
from prisma.publish.card import Record
from prisma.publish.manifest import Entry
from prisma.run_folder import read_metrics


@pytest.fixture
def record(run: Path) -> Record:
    recipe, results = (json.loads((run / f"{name}.json").read_text()) for name in ("recipe", "results"))
    entries = [Entry(step, f"step-{step:06d}", "c" * 40, f"{step}" * 64, 9, ((0.5,),)) for step in (0, 1, 2, 4, 6)]
    return Record("lab/tiny", recipe, results, read_metrics(run / "metrics.jsonl"), entries)


def with_fact(record: Record, path: str, value: Any) -> Record:
    """A copy of the record in which one fact ("recipe.task.sha256") is another; ... removes it."""
    copied = json.loads(json.dumps({"recipe": record.recipe, "results": record.results}))
    *parents, last = path.split(".")
    place = copied
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return dataclasses.replace(record, **copied)


def test_no_section_is_empty(run: Path) -> None:
    text = preview(run, "lab/tiny")
    sections = re.split(r"^## ", text.split("---\n", 2)[2], flags=re.M)
    titles = [section.splitlines()[0] for section in sections[1:]]
    wanted = ["What it does", "Results", "Load it", "Training", "Checkpoints", "Reproduce", "Environment", "Limits"]
    assert titles == [*wanted, "Licence", "Citation"]
    assert all(len(section.strip().splitlines()) > 1 for section in sections)
    for gap in ("More Information Needed", "None", "Undefined", "nan", "| |\n| |", "``"):
        assert gap not in text.replace("```", "")


def test_the_hub_understands_its_metadata(run: Path) -> None:
    data = ModelCard(preview(run, "lab/tiny")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "prisma", "image-classification")
    assert set(data.tags) == {"vision-transformer", "mechanistic-interpretability", "prisma", "mouse"}
    results = json.loads((run / "results.json").read_text())["results"]
    stated = {(result.metric_name, result.dataset_split): result.metric_value for result in data.eval_results}
    assert stated == {(row["name"], row["split"]): row["value"] for row in results}


def test_every_number_is_the_runs(run: Path) -> None:
    text = preview(run, "lab/tiny")
    results, recipe = (json.loads((run / f"{name}.json").read_text()) for name in ("results", "recipe"))
    for row in results["results"]:
        assert f"| {row['name']} | {row['value']:.4f} | {row['split']} | {row['n']:,} |" in text
    for key, value in recipe["training"].items():
        assert f"| `{key}` | {value} |" in text
    lines = {line["step"]: line for line in read_metrics(run / "metrics.jsonl")}
    for step in (0, 1, 2, 4, 6):
        assert f"| {step} | `step-{step:06d}` | {lines[step]['test_accuracy']:.4f} |" in text
    assert recipe["task"]["sha256"] in text


def test_every_link_is_a_file_of_main(run: Path, hub: Path) -> None:
    text = preview(run, "lab/tiny")
    commit = (hub / "models--lab--tiny/refs/main").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {"config.json", "results.json", "curves/loss.png", "curves/accuracy.png"} <= set(links)
    assert all((hub / "models--lab--tiny/snapshots" / commit / link).is_file() for link in links)


def test_its_code_runs_and_rebuilds_the_logged_loss(run: Path, hub: Path) -> None:
    """All code blocks in order, as a reader would paste them, next to the hub and without a network."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", preview(run, "lab/tiny"), flags=re.S))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=hub.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ((step, loss),) = re.findall(r"loss at step (\d+): ([\d.]+)", done.stdout)
    logged = {line["step"]: line["loss"] for line in read_metrics(run / "metrics.jsonl")}
    assert float(loss) == pytest.approx(logged[int(step)], rel=1e-6)
    assert re.search(r"right: \d+ of \d+", done.stdout)


@pytest.mark.parametrize(
    "fact",
    [
        "recipe.task", "recipe.task.name", "recipe.task.source", "recipe.task.sha256", "recipe.training.warmup",
        "recipe.optimizer", "recipe.data_order", "recipe.command", "recipe.environment", "recipe.run", "results.seeds",
        "results.results", "results.command", "results.results.0.split", "results.results.0.n",
        "results.results.0.value",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [..., None], ids=["missing", "null"])
def test_a_missing_fact_is_an_error(run: Path, record: Record, fact: str, value: object) -> None:
    with pytest.raises(PrismaError, match="expected every value that the card") as error:
        card.render(with_fact(record, fact, value), read_checkpoint(run))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("recipe.task.source", " "), ("results.results", []), ("results.results.0.value", float("nan"))],
)
def test_an_empty_fact_is_an_error(run: Path, record: Record, fact: str, value: object) -> None:
    changed = with_fact(record, "recipe.run", "r")
    if value != value:  # JSON has no NaN
        changed.results["results"][0]["value"] = value
    else:
        changed = with_fact(changed, fact, value)
    with pytest.raises(PrismaError, match="expected every value that the card"):
        card.render(changed, read_checkpoint(run))


HOSTILE = "<script>alert(1)</script> | **x** [y](http://z) `w`\n## Heading\n---\n```"


@pytest.mark.parametrize(
    "fact",
    ["recipe.task.source", "recipe.task.name", "recipe.command", "results.command", "recipe.data_order.words",
     "results.results.0.name", "recipe.environment.platform", "recipe.run"],
)  # fmt: skip
def test_strings_of_the_run_stay_text(run: Path, record: Record, fact: str) -> None:
    from markdown_it import MarkdownIt

    def tags(text: str) -> list[str]:
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(ModelCard(text).text)
        return re.findall(r"</?[a-z]+[0-9]?", html)

    honest = card.render(with_fact(record, fact, "word"), read_checkpoint(run))
    hostile = card.render(with_fact(record, fact, HOSTILE), read_checkpoint(run))
    assert tags(hostile) == tags(honest)
    assert ModelCard(hostile).data.license == "mit"


def test_a_run_of_no_checkout_and_a_resumed_run_say_so(run: Path, record: Record) -> None:
    resumed = [{"environment": {"python": "9.9"}, "git": {"commit": "f" * 40, "dirty": False}}]
    changed = with_fact(with_fact(record, "recipe.git", None), "recipe.resumed", resumed)
    text = card.render(changed, read_checkpoint(run))
    assert "an installed package, without a git commit" in text
    assert "Resumed with" in text
    assert "9.9" in text
    assert f"commit `{'f' * 40}` |" in text


def test_no_wrong_image_is_not_an_error_of_zero(run: Path, record: Record) -> None:
    """At an accuracy of 0.8074, 14 images are all right once in twenty times."""
    rows = [row for row in record.results["results"] if row["name"] == "test accuracy"]
    row = f"results.results.{record.results['results'].index(rows[0])}"
    perfect = with_fact(with_fact(record, f"{row}.value", 1.0), f"{row}.n", 14)
    limits = card.render(perfect, read_checkpoint(run)).split("## Limits")[1]
    assert "All 14 images of the test split are right." in limits and "is at least 0.8074." in limits
    assert "standard error" not in limits and abs(0.8074**14 - 0.05) < 1e-4


def test_checkpoints_that_were_not_measured_have_no_column_for_it(run: Path, record: Record) -> None:
    lines = [{key: line[key] for key in ("step", "loss", "lr")} for line in record.metrics]
    text = card.render(dataclasses.replace(record, metrics=lines), read_checkpoint(run))
    assert "| Step | Revision | SHA-256 of the weights |" in text
