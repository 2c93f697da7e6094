"""The card: facts from the run's files alone, no gap, nothing injected, and code that runs."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from prisma.checkpoint import read_checkpoint
from prisma.errors import PrismaError
from prisma.publish import card, preview
from prisma.publish.card import Record, _schedule
from prisma.publish.facts import Fact
from prisma.publish.manifest import Entry
from prisma.publish.metadata import problems
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
    assert titles == [
        "What it does", "Intended use and limits", "Results", "Training dynamics", "Load it", "Data", "Training",
        "Hardware and time", "Checkpoints", "Provenance", "Licence", "Citation",
    ]  # fmt: skip
    assert all(len(section.strip().splitlines()) > 1 for section in sections)
    for gap in ("More Information Needed", "(?<!hub = )None", "Undefined", r"\bnan\b", r"\| \|\n\| \|", "``"):
        assert not re.search(gap, text.replace("```", ""))


def test_the_hub_understands_its_metadata(run: Path) -> None:
    data = ModelCard(preview(run, "lab/tiny")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "prisma", "image-classification")
    assert set(data.tags) == {"vision-transformer", "mechanistic-interpretability", "prisma", "mouse"}
    results = json.loads((run / "results.json").read_text())["results"]
    stated = {(result.metric_name, result.dataset_split): result.metric_value for result in data.eval_results}
    assert stated == {(row["name"], row["split"]): row["value"] for row in results}
    assert problems(data.to_dict()) == [] and data.metrics == ["accuracy", "loss"]
    seconds = json.loads((run / "results.json").read_text())["seconds"]
    found = data.to_dict()["co2_eq_emissions"]
    assert found["emissions"] == pytest.approx(seconds * 12 / 3.6e6 * 473, rel=0.05)  # two digits
    assert found["source"].startswith("estimate: ") and found["hardware_used"] == "1 core of a CPU"


def test_every_number_is_the_runs(run: Path) -> None:
    text = preview(run, "lab/tiny")
    results, recipe = (json.loads((run / f"{name}.json").read_text()) for name in ("results", "recipe"))
    for row in results["results"]:
        assert f"| {row['name']} | {row['value']:.4f} | {row['split']} | {row['n']:,} |" in text
    for key, value in recipe["training"].items():
        assert f"| `{key}` | {value} |" in text
    assert "rises for 1 step to 0.003, then falls" in text and "| betas | 0.9, 0.999 |" in text
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


def test_its_code_runs_and_rebuilds_the_logged_loss(
    run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All code blocks in order, as a reader would paste them, next to the hub and without a network.

    The snippet for the Hub reads the Hub's cache, whose layout the folder hub has.
    """
    code = "\n".join(re.findall(r"```python\n(.*?)```", preview(run, "lab/tiny"), flags=re.S))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.chdir(hub.parent)
    exec(code, {"__name__": "__main__"})
    said = capsys.readouterr().out
    ((step, loss),) = re.findall(r"loss at step (\d+): ([\d.]+)", said)
    logged = {line["step"]: line["loss"] for line in read_metrics(run / "metrics.jsonl")}
    assert float(loss) == pytest.approx(logged[int(step)], rel=1e-6)
    assert re.search(r"right: \d+ of \d+", said)
    assert 'mouse = prisma.load("lab/tiny")  #' in code and 'prisma.load("lab/tiny", revision="step-000002")' in code


FACTS = [
    "recipe.task", "recipe.task.name", "recipe.task.source", "recipe.task.sha256", "recipe.task.images",
    "recipe.training", "recipe.training.warmup", "recipe.optimizer", "recipe.data_order", "recipe.data_order.words",
    "recipe.command", "recipe.environment", "recipe.environment.prisma", "recipe.run", "results.seeds",
    "results.results", "results.command", "results.results.0.split", "results.results.0.n", "results.results.0.value",
]  # fmt: skip


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("value", [..., None], ids=["missing", "null"])
def test_a_missing_fact_is_an_error_that_names_it(run: Path, record: Record, fact: str, value: object) -> None:
    file, _, field = fact.partition(".")
    field = field.replace("results.0", r"results\[0\]")
    with pytest.raises(PrismaError, match=rf"^expected {field} in {file}\.json; found none$"):
        card.render(with_fact(record, fact, value), read_checkpoint(run))


WRONG: dict[str, tuple[Any, str]] = {
    "recipe.task.source": (" ", "to be text; found ' '"),
    "recipe.training.warmup": ("5", "to be a whole number of at least 0; found '5'"),
    "recipe.license": (5, "to be text; found 5"),
    "recipe.datasets": ("a b", "expected OWNER/NAME in .*; found 'a b', which has a space"),
    "recipe.wandb": ({}, "to be text; found {}"),
    "results.results": ([], r"to have an entry; found \[\]"),
    "results.results.0.value": (float("nan"), "to be a finite number; found nan"),
    "results.results.0.n": (0, "to be a whole number of at least 1; found 0"),
    "results.results.0.name": (["x"], r"to be text; found \['x'\]"),
    "results.seeds": ({str(i): i for i in range(101)}, "to have at most 100 entries, not 101; found {"),
    "results.seconds": (-1, "to be at least 0; found -1"),
    "results.curves": ("loss", "to be a list; found 'loss'"),
}


@pytest.mark.parametrize("fact", WRONG)
def test_a_wrong_fact_is_an_error_that_names_file_and_field(run: Path, record: Record, fact: str) -> None:
    value, words = WRONG[fact]
    file, _, field = fact.partition(".")
    field = re.escape(field.replace("results.0", "results[0]"))
    with pytest.raises(PrismaError, match=rf"{field} in {file}\.json.* {words}"):
        card.render(with_fact(record, fact, value), read_checkpoint(run))


def test_a_wrong_line_of_the_metrics_is_named_by_its_number(run: Path, record: Record) -> None:
    for change, words in (
        ({"loss": "x"}, "expected loss in line 3 of metrics.jsonl to be a finite number; found 'x'"),
        ({"test_accuracy": 2}, "expected test_accuracy in line 3 of metrics.jsonl to be from 0 to 1; found 2"),
        ({"step": None}, "expected step in line 3 of metrics.jsonl; found none"),
    ):
        metrics = [{**line, **change} if i == 2 else line for i, line in enumerate(record.metrics)]
        with pytest.raises(PrismaError) as error:
            card.render(dataclasses.replace(record, metrics=metrics), read_checkpoint(run))
        assert str(error.value) == words


def test_a_run_of_no_checkout_and_a_resumed_run_say_so(run: Path, record: Record) -> None:
    resumed = [{"environment": {"python": "9.9"}, "git": {"commit": "f" * 40, "dirty": False}}]
    changed = with_fact(with_fact(record, "recipe.git", None), "recipe.resumed", resumed)
    text = card.render(changed, read_checkpoint(run))
    assert "an installed package, without a git commit" in text
    assert "Resumed with" in text
    assert "9.9" in text
    assert f"commit `{'f' * 40}` |" in text


def test_a_licence_is_stated_and_never_guessed(run: Path, record: Record) -> None:
    final = read_checkpoint(run)
    assert "card: MIT. The data: UCI" in card.render(record, final)
    of_0_1_0 = with_fact(record, "recipe.license", ...)
    assert ModelCard(card.render(of_0_1_0, final)).data.license == "mit"  # that of the recipe of this name
    for own in (with_fact(of_0_1_0, "recipe.recipe", "mine"), with_fact(record, "recipe.license", None)):
        text = card.render(own, final)
        assert "no licence was stated, so none is granted" in text and ModelCard(text).data.license is None
    other = card.render(with_fact(record, "recipe.license", "cc-by-4.0"), final)
    assert ModelCard(other).data.license == "cc-by-4.0" and "card: Creative Commons Attribution 4.0." in other


def test_what_a_recipe_may_record_more(run: Path, record: Record) -> None:
    changed = with_fact(with_fact(record, "recipe.base_model", "lab/base"), "recipe.datasets", ["lab/set", "mnist"])
    text = card.render(with_fact(changed, "recipe.wandb", "https://wandb.ai/lab/p/runs/1"), read_checkpoint(run))
    data = ModelCard(text).data.to_dict()
    assert (data["base_model"], data["base_model_relation"]) == ("lab/base", "finetune")
    assert data["datasets"] == ["lab/set", "mnist"] and data["co2_eq_emissions"]["training_type"] == "fine-tuning"
    assert "[lab/set](https://huggingface.co/datasets/lab/set)" in text and "fine-tuned from lab/base" in text
    assert "<https://wandb.ai/lab/p/runs/1>" in text and problems(data) == []


@pytest.mark.parametrize("page", ["http://wandb.ai/x", "javascript:alert(1)", "https://x/a)[b](c", "https://u@x.org/"])
def test_only_the_address_of_a_page_is_printed(run: Path, record: Record, page: str) -> None:
    assert page not in card.render(with_fact(record, "recipe.wandb", page), read_checkpoint(run))


def test_an_unknown_time_is_not_invented(run: Path, record: Record) -> None:
    text = card.render(with_fact(record, "results.seconds", ...), read_checkpoint(run))
    assert "How long training took was not recorded." in text and "CO2" not in text and "co2" not in text


def test_a_run_of_an_earlier_version_has_no_picture_of_its_dynamics(run: Path, record: Record) -> None:
    text = card.render(with_fact(record, "results.curves", ...), read_checkpoint(run))
    assert "dynamics" not in text and "curves/accuracy.png" in text


def test_many_checkpoints_and_places_are_counted(run: Path, record: Record) -> None:
    entries = [dataclasses.replace(record.entries[0], step=i, revision=f"step-{i:06d}") for i in range(500)]
    place = {"environment": {"python": "9.9"}}
    changed = with_fact(dataclasses.replace(record, entries=entries), "recipe.resumed", [place] * 12)
    text = card.render(changed, read_checkpoint(run))
    assert "| … | 300 more |" in text and len(re.findall(r"^\| \d+ \| `step-", text, re.MULTILINE)) == 200
    assert text.count("Resumed with") == 9 and "It was resumed 3 more times" in text


def test_no_wrong_image_is_not_an_error_of_zero(run: Path, record: Record) -> None:
    """At an accuracy of 0.8074, 14 images are all right once in twenty times."""
    rows = [row for row in record.results["results"] if row["name"] == "test accuracy"]
    row = f"results.results.{record.results['results'].index(rows[0])}"
    perfect = with_fact(with_fact(record, f"{row}.value", 1.0), f"{row}.n", 14)
    limits = card.render(perfect, read_checkpoint(run)).split("## Intended use and limits")[1].split("## ")[0]
    assert "All 14 images of the test split are right." in limits and "is at least 0.8074." in limits
    assert "standard error" not in limits and abs(0.8074**14 - 0.05) < 1e-4


def test_checkpoints_that_were_not_measured_have_no_column_for_it(run: Path, record: Record) -> None:
    lines = [{key: line[key] for key in ("step", "loss", "lr")} for line in record.metrics]
    text = card.render(dataclasses.replace(record, metrics=lines), read_checkpoint(run))
    assert "| Step | Revision | SHA-256 of the weights |" in text


def test_the_rate_falls_as_the_recipe_says() -> None:
    training = {"steps": 9, "lr": 0.1, "warmup": 1, "checkpoint_every": 5, "batch_size": 2}
    assert _schedule(Fact(training, "recipe.json"))["falls"] == "as half a cosine to zero"
    stairs = {**training, "decay_every": 2000}
    assert _schedule(Fact(stairs, "recipe.json"))["falls"] == "to 0.8 of itself after each 2,000 steps"
    assert "to 0.5 of" in _schedule(Fact({**stairs, "decay_factor": 0.5}, "recipe.json"))["falls"]
