"""The small files of `main` of a published mouse: read, and compared with each other and with the manifest.

None of them is trusted. The manifest states the hashes of the others; the numbers of `results.json` are those of the
last line of `metrics.jsonl`; the schedule, the learning rates and the architecture follow from `recipe.json`; and the
card is what all of them render to.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prisma.bounds import JSON
from prisma.bounds import METRICS as METRICS_BYTES
from prisma.checkpoint import CONFIG, MODEL_TYPE, WEIGHTS, Checkpoint, config_from_dict
from prisma.data import known_task
from prisma.data.task import Task
from prisma.errors import PrismaError, listed, quoted, shown
from prisma.fields import conform, from_dict
from prisma.files import read_json
from prisma.mechanisms.findings import SOURCE, Mechanism
from prisma.mechanisms.page import PAGE
from prisma.outline import outline
from prisma.publish.card import Record, render
from prisma.publish.commits import FileRecord
from prisma.publish.findings import gathered, noted
from prisma.publish.manifest import Manifest
from prisma.publish.mechanism_section import (
    is_mechanism_name,
    mechanism_problems,
    section_of,
    with_section,
)
from prisma.publish.plan import CARD
from prisma.publish.prose import prose_of, with_prose
from prisma.publish.sources import Source
from prisma.reading import read_bytes, read_text
from prisma.repository import MANIFEST
from prisma.run_folder import METRICS, RECIPE, RESULTS, read_metrics, read_results, scheduled_steps
from prisma.train.config import TrainConfig, objective_in
from prisma.train.loop import EVALUATED
from prisma.train.optimizer import learning_rate

T = TypeVar("T")
SMALL: Mapping[str, int] = {
    CONFIG: JSON,
    CARD: JSON,
    MANIFEST: JSON,
    RECIPE: JSON,
    RESULTS: JSON,
    METRICS: METRICS_BYTES,
    SOURCE: JSON,
    PAGE: JSON,
}
"""The files that every audit reads -> their largest size in bytes."""


@dataclass(frozen=True)
class Main:
    """What `main` holds, as far as it can be read."""

    repo: str
    listing: Mapping[str, FileRecord]
    manifest: Manifest | None = None
    recipe: Mapping[str, Any] | None = None
    results: Mapping[str, Any] | None = None
    metrics: Sequence[Mapping[str, Any]] | None = None
    card: str | None = None
    mechanism: Mechanism | None = None  # its mechanism card, if it has one
    page: str | None = None  # of the mechanism card
    model: Checkpoint | None = None  # what config.json states, without weights

    @property
    def task(self) -> Task | None:
        """The task of the recipe, if this version of Prisma can build it here."""
        try:
            found = known_task(self.recipe["task"]["name"]) if self.recipe else None
        except (PrismaError, KeyError, TypeError):
            return None
        return found if found is not None and found.is_here else None

    def line(self, step: int) -> Mapping[str, Any]:
        """The metrics of a step; nothing if there are none."""
        return next((line for line in self.metrics or () if line.get("step") == step), {})


def read_main(source: Source, commit: str, problems: list[str]) -> Main:
    """The small files of a commit of `main`. What cannot be read becomes a problem, and is None."""
    listing = source.listing(commit)

    has_mechanism = any(is_mechanism_name(name) for name in listing)

    def read(name: str, how: Callable[[Path], T]) -> T | None:
        if name not in listing:
            if name in (SOURCE, PAGE) and not has_mechanism:
                return None
            problems.append(f"expected a file {name}; found none")
            return None
        if listing[name].size > SMALL[name]:
            problems.append(f"expected {name} of at most {SMALL[name]:,} bytes; found {listing[name].size:,}")
            return None
        with noted(problems):
            folder = source.folder(commit, [name])
            with noted(problems, folder):
                return how(folder / name)
        return None

    return Main(
        source.repo,
        listing,
        manifest=read(MANIFEST, lambda path: Manifest.parse(read_bytes(path))),
        recipe=read(RECIPE, read_json),
        results=read(RESULTS, lambda path: read_results(path.parent)),
        metrics=read(METRICS, read_metrics),
        card=read(CARD, read_text),
        mechanism=read(SOURCE, lambda path: Mechanism.parse(read_bytes(path))),
        page=read(PAGE, read_text),
        model=read(CONFIG, read_shape),
    )


def read_shape(path: Path) -> Checkpoint:
    """What a `config.json` states: a model that has shapes and no weights, labels, and a transform.

    Raises:
        PrismaError: it does not describe a model of Prisma.
    """
    values = read_json(path)
    architecture, transform = values.get("architecture"), values.get("transform")
    if values.get("model_type") != MODEL_TYPE or not (isinstance(architecture, dict) and isinstance(transform, dict)):
        raise PrismaError(
            f"expected a model of type {MODEL_TYPE!r} in {path}; found {quoted(values.get('model_type'))}"
        )
    config = config_from_dict(architecture, path)
    return Checkpoint(outline(config), conform("labels", values.get("labels"), tuple[str, ...]), transform, {})


def content(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What a `config.json` states, whichever version of Prisma wrote it."""
    return checkpoint.model.config, checkpoint.labels, dict(checkpoint.transform)


def number_problems(main: Main) -> Iterator[str]:
    """Where recipe, results, metrics and config of `main` contradict each other."""
    if main.recipe is not None and main.results is not None:
        for name in ("run", "seeds", "recipe"):
            if main.recipe.get(name) != main.results.get(name):
                yield (
                    f"expected {name} {shown(main.recipe.get(name))} in {RESULTS}, as in {RECIPE}; found "
                    f"{shown(main.results.get(name))}"
                )
    if main.results is not None and main.metrics:
        yield from _result_problems(main.results, main.metrics[-1])
    if main.recipe is not None:
        yield from gathered(_recipe_problems(main, main.recipe))


def _result_problems(results: Mapping[str, Any], last: Mapping[str, Any]) -> Iterator[str]:
    if results.get("steps") != last.get("step"):
        steps = shown(results.get("steps"))
        yield f"expected metrics up to step {steps}, as in {RESULTS}; found step {shown(last.get('step'))}"
    for row in results["results"]:
        key = row["name"].replace(" ", "_")
        if key in last and row["value"] != last[key]:
            yield (
                f"expected {shown(row['name'])} {shown(last[key])} in {RESULTS}, as in the last line of {METRICS}; "
                f"found {shown(row['value'])}"
            )


def _recipe_problems(main: Main, recipe: Mapping[str, Any]) -> Iterator[str]:
    training = from_dict(TrainConfig, recipe.get("training"), f"training of {RECIPE}")
    last = scheduled_steps(Path(), recipe)[-1]
    if main.metrics is not None:
        if [line.get("step") for line in main.metrics] != list(range(last + 1)):
            yield f"expected a line for every step from 0 to {last} in {METRICS}; found others"
        if not all(type(line.get(name)) in (int, float) for line in main.metrics for name in ("loss", "lr")):
            yield f"expected numbers for loss and lr on every line of {METRICS}; found others"
        for line in main.metrics:
            step, found = line.get("step"), line.get("lr")
            if type(step) is int and 0 <= step <= last and isinstance(found, int | float):
                wanted = learning_rate(training, step)
                if not math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-15):
                    yield f"expected learning rate {wanted:g} at step {step}, by {RECIPE}; found {found:g} in {METRICS}"
                    break
    if main.model is not None:
        config, parameters = main.model.model.config, sum(p.numel() for p in main.model.model.parameters())
        model = recipe.get("model")
        if not isinstance(model, dict) or config_from_dict(model, f"model of {RECIPE}") != config:
            yield f"expected the architecture of {RECIPE} in {CONFIG}; found another"
        if main.results is not None and main.results.get("parameters") != parameters:
            yield f"expected {parameters} parameters in {RESULTS}; found {shown(main.results.get('parameters'))}"
    if (data := main.task) is not None:
        yield from _task_problems(main, recipe, data)


def _task_problems(main: Main, recipe: Mapping[str, Any], data: Task) -> Iterator[str]:
    stated = recipe["task"]
    if stated.get("sha256") != data.sha256:
        found = shown(stated.get("sha256"))
        yield f"expected data of hash {data.sha256} for the task {data.name} in {RECIPE}; found {found}"
    if main.model is not None:
        names = objective_in(recipe, main.model.model.config, data).names
        if main.model.labels != names:
            found = listed(main.model.labels, 5)
            yield f"expected the labels of the task {data.name} in {CONFIG}; found others: {found}"
    if main.model is not None and dict(main.model.transform) != data.transform.to_dict():
        yield f"expected the transform of the task {data.name} in {CONFIG}; found another"
    images = stated.get("images")
    for row in (main.results or {}).get("results", ()):
        there = images.get(row["split"]) if isinstance(images, dict) else None
        if type(there) is int and row["n"] != (wanted := min(there, EVALUATED)):
            split = shown(row["split"])
            yield f"expected {wanted} images of the split {split} in {RESULTS}, by {RECIPE}; found {row['n']}"


def card_problem(main: Main) -> str | None:
    """How the card differs from what its data renders to; None if it does not, or cannot be rendered.

    What was written by hand between its marks is not compared.
    """
    if not (main.manifest and main.recipe and main.results and main.metrics and main.model) or main.card is None:
        return None
    rows = tuple(sorted(main.manifest.checkpoints, key=lambda entry: entry.step))
    record = Record(main.repo, main.recipe, main.results, main.metrics, rows, main.manifest.yanked)
    try:
        wanted = with_prose(render(record, main.model), prose_of(main.card))
        wanted = with_section(wanted, section_of(main.mechanism))
    except Exception as error:  # of any kind: the data are a stranger's
        return f"expected files of main from which a card can be rendered; found {shown(str(error), 300)}"
    return None if main.card == wanted else difference(main.card, wanted)


def mechanism_findings(main: Main) -> Iterator[str]:
    """Where the mechanism card of `main` is not what its values render to, or is of other weights."""
    if main.mechanism is None:
        return
    stated = main.manifest.files if main.manifest else ()
    weights = next((record.sha256 for record in stated if record.name == WEIGHTS), None)
    yield from mechanism_problems(main.mechanism, main.page, weights, main.listing)


def difference(found: str, wanted: str) -> str:
    """Where a card differs first from what its data renders to."""
    lines = zip(wanted.splitlines(), found.splitlines(), strict=False)
    first = next(((a, b) for a, b in lines if a != b), None)
    if first is None:
        return f"expected {CARD} as its data renders; found one that ends otherwise"
    return (
        f"expected {CARD} as its data renders ({quoted(first[0], 120)}); found {quoted(first[1], 120)}: it was edited, "
        "or rendered by another version of Prisma; publish again"
    )
