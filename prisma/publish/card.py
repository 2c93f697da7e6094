"""The card of a mouse: `templates/model.md`, filled in from the run's files alone. A missing fact is an error."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from prisma.checkpoint import Checkpoint
from prisma.errors import PrismaError, printable, shown
from prisma.publish.manifest import Entry, Yanked

TAGS = ("vision-transformer", "mechanistic-interpretability", "prisma", "mouse")
TASK = "image-classification"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$])")


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
        PrismaError: a fact that the card needs is missing from the run's files, or empty.
    """
    from jinja2 import Environment, StrictUndefined, UndefinedError

    environment = Environment(undefined=StrictUndefined, finalize=_present, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"text": _text, "code": _code, "line": _line, "number": _number}
    template = environment.from_string((files("prisma.publish") / "templates" / "model.md").read_text("utf-8"))
    try:
        text = template.render(**_facts(record, final))
    except (UndefinedError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PrismaError(
            f"expected every value that the card of {record.repo} needs in its run; found one missing: "
            f"{shown(str(error), 200)}"
        ) from error
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _facts(record: Record, final: Checkpoint) -> dict[str, Any]:
    config, recipe, results = final.model.config, record.recipe, record.results
    if not (final.labels and final.transform):
        raise ValueError("config.json has no labels, or no transform")
    lines = {line["step"]: line for line in record.metrics}
    measures = [lines.get(entry.step, {}) for entry in record.entries]
    checkpoints = [{"entry": entry, "line": line} for entry, line in zip(record.entries, measures, strict=True)]
    return {
        "metadata": _metadata(record),
        "repo": record.repo,
        "name": record.repo.split("/")[1],
        "model": asdict(config),
        "n_patches": config.n_patches,
        "d_head": config.d_head,
        "parameters": sum(p.numel() for p in final.model.parameters()),
        "labels": final.labels,
        "recipe": recipe,
        "task": recipe["task"],
        "results": results,
        "seeds": ", ".join(f"{role} {seed}" for role, seed in results["seeds"].items()),
        "places": [recipe, *recipe.get("resumed", ())],
        "errors": [
            {
                **row,
                "error": math.sqrt(row["value"] * (1 - row["value"]) / row["n"]),
                "least": 0.05 ** (1 / row["n"]),  # the accuracy at which n images are all right once in twenty times
            }
            for row in results["results"]
            if _measure(row) == "accuracy" and row["split"] != "train"
        ],
        "checkpoints": checkpoints,
        "yanked": record.yanked,
        "measured": all({"test_accuracy", "test_loss"} <= set(line) for line in measures),
        "middle": checkpoints[len(checkpoints) // 2],
        "sides": lambda value: f"{value} x {value}" if isinstance(value, int) else " x ".join(map(str, value)),
    }


def _metadata(record: Record) -> str:
    """The YAML of the front matter, as the Hub's own client writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    task = _one_line(record.recipe["task"]["name"])
    rows = [
        EvalResult(
            task_type=TASK,
            dataset_type=task,
            dataset_name=task,
            dataset_split=_one_line(row["split"]),
            metric_type=_measure(row),
            metric_name=_one_line(row["name"]),
            metric_value=row["value"],
        )
        for row in record.results["results"]
    ]
    if not rows:
        raise ValueError("results.json has no results")
    data = ModelCardData(
        license="mit",
        library_name="prisma",
        pipeline_tag=TASK,
        tags=list(TAGS),
        metrics=list(dict.fromkeys(_measure(row) for row in record.results["results"])),
        model_name=record.repo.split("/")[1],
        eval_results=rows,
    )
    return data.to_yaml()


def _measure(row: Mapping[str, Any]) -> str:
    """The measure of a row: "accuracy" of the row "test accuracy" of the split "test"."""
    return _one_line(row["name"]).removeprefix(f"{row['split']} ")


def _one_line(value: Any) -> str:
    return printable(" ".join(str(_present(value)).split()))


def _present(value: Any) -> Any:
    """Refuse a null; every expression of the template is passed through here."""
    if value is None:
        raise ValueError("one of its values is null")
    return value


def _text(value: Any) -> str:
    """On one line, with the special characters of Markdown and HTML escaped."""
    if not (words := _one_line(value)):
        raise ValueError("one of its values is empty")
    return _SPECIAL.sub(r"\\\1", words).replace("&", "&amp;")


def _code(value: Any) -> str:
    """Inside a code span, possibly in a table."""
    return _one_line(value).replace("`", "'").replace("|", "\\|")


def _line(value: Any) -> str:
    """On one line of a code block."""
    return _one_line(value).replace("`", "'")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"one of its numbers is {value}")
    return f"{value:.4f}"
