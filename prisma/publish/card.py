"""The card of a mouse: `templates/model.md`, filled in from the run's files alone. A missing fact is an error."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prisma.checkpoint import Checkpoint
from prisma.config import ViTConfig
from prisma.describe import describe, what_goes_in
from prisma.errors import PrismaError
from prisma.headlines import HEADLINES, objective_of
from prisma.publish.emissions import Cost, cost, duration
from prisma.publish.facts import Fact
from prisma.publish.manifest import Entry, Yanked
from prisma.publish.markdown import listing, one_line
from prisma.publish.metadata import license_name, to_yaml
from prisma.publish.prose import BEGIN, END
from prisma.publish.rendering import rendered
from prisma.recipes import RECIPES
from prisma.repo_names import expect_repo_name
from prisma.run_folder import (
    DYNAMICS,
    HEADS,
    LAST_POWER,
    METRICS,
    RECIPE,
    RESULTS,
    curve_kinds,
)
from prisma.train.objectives import CLASSIFICATION, OBJECTIVES

TAGS = ("vision-transformer", "mechanistic-interpretability", "prisma", "mouse")
PLACES = 10  # environments that a card shows
SHOWN = 100  # checkpoints that a card shows of the first, and of the last
MEASURES = {"accuracy": "accuracy", "r2": "R²"}  # what is beside the loss, as a card calls it
_PAGE = re.compile(r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._/-]*)?")


@dataclass(frozen=True)
class Record:
    """The content of a run's files, from which its card is rendered."""

    repo: str
    recipe: Mapping[str, Any]  # recipe.json
    results: Mapping[str, Any]  # results.json
    metrics: Sequence[Mapping[str, Any]]  # metrics.jsonl
    entries: Sequence[Entry]  # of the manifest, in step order
    yanked: Sequence[Yanked] = ()  # checkpoints that were taken back


def render(record: Record, final: Checkpoint) -> str:
    """README.md: Markdown with YAML front matter. `final` is the checkpoint that `main` serves.

    Raises:
        PrismaError: a fact that the card needs is missing from the run's files, empty or of a wrong kind; the sentence
            names the file and the field.
    """
    return rendered("model.md", _facts(record, final))


def _facts(record: Record, final: Checkpoint) -> dict[str, Any]:
    """What the template prints, every value checked."""
    expect_repo_name(record.repo)
    recipe, results = Fact(record.recipe, RECIPE), Fact(record.results, RESULTS)
    config, rows = final.model.config, [_result(row) for row in results["results"].rows()]
    if not final.transform:
        raise PrismaError("expected a transform in config.json; found none")
    goal = _goal(record)
    places, license, checkpoints = _places(recipe), _license(recipe), _checkpoints(record, goal["headline"])
    spent = cost([place["environment"] for place in places], results)
    task, seconds = recipe["task"], results.get("seconds")
    return {
        "metadata": to_yaml(_metadata(record.repo, recipe, config, rows, spent)),
        "repo": record.repo,
        "name": record.repo.split("/")[1],
        "layers": config.n_layers,
        "parameters": sum(p.numel() for p in final.model.parameters()),
        "input": what_goes_in(config),
        "features": config.d_pooled,
        "architecture": describe(config),
        "classes": config.n_classes,
        "label_list": listing(final.labels),
        "task": task["name"].text(),
        "source": task["source"].text(),
        "splits": {split: n.whole(1) for split, n in task["images"].items().items()},
        "data_hash": task["sha256"].text(),
        "datasets": _ids(recipe, "datasets"),
        "base_model": _ids(recipe, "base_model"),
        "order": recipe["data_order"]["words"].text(),
        "seeds": ", ".join(f"{role} {seed.whole()}" for role, seed in results["seeds"].items().items()),
        **goal,
        "results": rows,
        "errors": [row for row in rows if _is_share(row, goal["objective"]) and row["split"] != "train"],
        "curves": [kind.text() for kind in found.rows()] if (found := results.get("curves")) else list(curve_kinds({})),
        "dynamics": DYNAMICS,
        "settings": {key: value.setting() for key, value in recipe["training"].items().items()},
        "optimizer": {key: value.setting() for key, value in recipe["optimizer"].items().items()},
        **_schedule(recipe["training"], recipe.get("stopped")),
        "places": [_place(place) for place in places[:PLACES]],
        "more_places": max(len(places) - PLACES, 0),
        "duration": None if seconds is None else duration(seconds.number(0)),
        "cost": spent,
        "command": recipe["command"].text(),
        "results_command": results["command"].text(),
        "checkpoints": checkpoints if len(checkpoints) <= 2 * SHOWN else checkpoints[:SHOWN],
        "last_checkpoints": [] if len(checkpoints) <= 2 * SHOWN else checkpoints[-SHOWN:],
        "n_checkpoints": len(checkpoints),
        "first": checkpoints[0],
        "last": checkpoints[-1],
        "yanked": record.yanked,
        "middle": checkpoints[len(checkpoints) // 2],
        "measured": all(row["headline"] is not None and row["loss"] is not None for row in checkpoints),
        "run": recipe["run"].text(),
        "version": recipe["environment"]["prisma"].text(),
        "page": _page(recipe),
        "license": license,
        "license_name": None if license is None else license_name(license),
        "prose": (BEGIN, END),
    }


def _goal(record: Record) -> dict[str, str]:
    """What the mouse was trained for, and how its numbers are called."""
    objective = objective_of(record.recipe)
    return {
        "objective": objective,
        "explained": OBJECTIVES[objective].explained,
        "headline": (headline := HEADLINES[objective]),
        "headline_words": MEASURES[headline],
    }


def _result(row: Fact) -> dict[str, Any]:
    """A row of the results, with the standard error of an accuracy."""
    name, split, n = row["name"].text(), row["split"].text(), row["n"].whole(1)
    measure = one_line(name).removeprefix(f"{one_line(split)} ")
    value = row["value"].number(*_bounds(measure))
    return {
        "name": name,
        "split": split,
        "n": n,
        "value": value,
        "measure": measure,
        "error": math.sqrt(value * (1 - value) / n) if 0 <= value <= 1 else 0,
        "least": 0.05 ** (1 / n),  # the accuracy at which n images are all right once in twenty times
    }


def _is_share(row: Mapping[str, Any], objective: str) -> bool:
    """Whether a row is the share of images that are right, whose standard error follows: a mean of several is none."""
    single = objective == CLASSIFICATION.name
    return row["measure"] == "accuracy" if single else re.fullmatch(r"(?!ema ).+ accuracy", row["measure"]) is not None


def _bounds(measure: str) -> tuple[float, float]:
    """The least and the largest value of a number that training measures."""
    if measure.endswith("r2"):
        return -math.inf, 1
    return 0, 1 if measure.endswith("accuracy") else math.inf


def _checkpoints(record: Record, headline: str) -> list[dict[str, Any]]:
    """A row for each checkpoint; its headline (accuracy) and loss are None where they were not measured."""
    lines: dict[int, Fact] = {}
    for i, values in enumerate(record.metrics):
        line = Fact(values, f"line {i + 1} of {METRICS}")
        for key, value in line.items().items():
            if key not in ("step", HEADS):
                value.number(*_bounds(key))
        lines[line["step"].whole()] = line
    if not record.entries:
        raise PrismaError("expected a checkpoint in the manifest; found none")
    rows = []
    for entry in record.entries:
        line = lines.get(entry.step, Fact({}, METRICS))
        found = {"headline": line.get(f"test_{headline}"), "loss": line.get("test_loss")}
        measures = {key: None if value is None else value.number() for key, value in found.items()}
        rows.append({"step": entry.step, "revision": entry.revision, "sha256": entry.sha256, **measures})
    return rows


def _schedule(training: Fact, stopped: Fact | None = None) -> dict[str, Any]:
    """The learning rate and the checkpoints over the steps, as `prisma.train` has them."""
    every, factor = training.get("decay_every"), training.get("decay_factor")
    stairs = f"to {factor.setting() if factor else '0.8'} of itself after each {every.whole():,} steps" if every else ""
    return {
        "falls": stairs or "as half a cosine to zero",
        "steps": training["steps"].whole(1),
        "lr": training["lr"].setting(),
        "warmup": training["warmup"].whole(),
        "every": training["checkpoint_every"].whole(1),
        "power": LAST_POWER,
        "batch": training["batch_size"].whole(1),
        "stopped": stopped["step"].whole() if stopped else None,
    }


def _places(recipe: Fact) -> list[Fact]:
    """Where the run was trained: first, and wherever it was resumed with another environment."""
    resumed = recipe.get("resumed")
    return [recipe, *(resumed.rows(0, 10_000) if resumed else ())]


def _place(place: Fact) -> dict[str, Any]:
    git = place.get("git")
    dirty = git.get("dirty") if git else None
    return {
        "environment": {key: value.setting() for key, value in place["environment"].items().items()},
        "commit": git["commit"].text() if git else None,
        "dirty": dirty is not None and dirty.value is not False,
    }


def _license(recipe: Fact) -> str | None:
    """The licence that the recipe states; of an earlier version's run, that of the recipe of this name."""
    if stated := recipe.get("license"):
        return stated.text()
    known = None if "license" in recipe.value else RECIPES.get(recipe["recipe"].text())
    return known.license if known else None


def _ids(recipe: Fact, field: str) -> list[str]:
    """The repositories of the Hub that a field of the recipe names, one or several."""
    found = recipe.get(field)
    if found is None:
        return []
    names = [found] if isinstance(found.value, str) else found.rows()
    for name in names:
        try:
            expect_repo_name(name.text(), owner=False)
        except PrismaError as error:
            raise PrismaError(f"{name.field} in {name.file}: {error}") from None
    return [name.text() for name in names]


def _page(recipe: Fact) -> str | None:
    """The address of the run's page on wandb, if it is one that can be printed as it is."""
    found = recipe.get("wandb")
    return found.text() if found and _PAGE.fullmatch(found.text()) and len(found.text()) < 400 else None


def _metadata(
    repo: str, recipe: Fact, config: ViTConfig, rows: Sequence[Mapping[str, Any]], spent: Cost | None
) -> dict[str, Any]:
    """The fields of the front matter, in the order in which the Hub documents them."""
    if config.n_classes and HEADLINES[objective_of(recipe.value)] == "accuracy":
        kind = "video-classification" if config.frames > 1 else "image-classification"
    else:
        kind = "image-feature-extraction"
    task = one_line(recipe["task"]["name"].text())
    results: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        metric = {"type": row["measure"], "value": row["value"], "name": one_line(row["name"])}
        results.setdefault(one_line(row["split"]), []).append(metric)
    base = _ids(recipe, "base_model")
    relation = recipe.get("base_model_relation")
    found = {
        "license": None if (license := _license(recipe)) is None else one_line(license),
        **{key: value.text() for key in ("license_name", "license_link") if (value := recipe.get(key))},
        "library_name": "prisma",
        "pipeline_tag": kind,
        "tags": list(TAGS),
        "datasets": _ids(recipe, "datasets"),
        "metrics": list(dict.fromkeys(row["measure"] for row in rows)),
        "base_model": base[0] if len(base) == 1 else base,
        "base_model_relation": (relation.text() if relation else "finetune") if base else None,
        "co2_eq_emissions": None
        if spent is None
        else {
            "emissions": float(f"{spent.grams:.2g}"),
            "source": spent.words,
            "training_type": "fine-tuning" if base else "pre-training",
            "hardware_used": spent.hardware,
        },
        "model-index": [
            {
                "name": repo.split("/")[1],
                "results": [
                    {
                        "task": {"type": kind},
                        "dataset": {"name": task, "type": task, "split": split},
                        "metrics": metrics,
                    }
                    for split, metrics in results.items()
                ],
            }
        ],
    }
    return {key: value for key, value in found.items() if value not in (None, [])}
