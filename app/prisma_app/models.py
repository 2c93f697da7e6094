"""Mice as the views need them: published ones, with their checkpoints and probe images, and those in the package."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.data import task
from prisma.data.task import Task
from prisma.errors import PrismaError, nearest
from prisma.files import read_json
from prisma.headlines import HEADLINES, objective_of
from prisma.loaded import Loaded, load
from prisma.recipes import recipe
from prisma.repository import MAIN, MICE, Published, published_in
from prisma.run_folder import METRICS, RECIPE, read_metrics
from prisma.train.objectives import CLASSIFICATION
from prisma_app.cache import Cache
from prisma_app.pictures import Picture, transform_of
from prisma_app.subject import Subject, expect_still_images

N_EXAMPLES, N_PROBE, N_FIRST = 20, 256, 4
WEIGHTS_BUDGET = 2 * 2**30  # bytes of parameters that are kept in memory, over all models


def weight_bytes(loaded: Loaded) -> int:
    """The bytes of a model's parameters."""
    return sum(p.numel() * p.element_size() for p in loaded.model.parameters())


LOADED: Cache[Loaded] = Cache(WEIGHTS_BUDGET, weight_bytes)
"""By hub, name and commit: when a label moves, its new commit is loaded. Nothing is read that is held."""


@dataclass(frozen=True)
class Mouse(Subject):
    """One published mouse, at a commit."""

    published: Published

    @property
    def name(self) -> str:
        return self.published.repo

    @cached_property
    def rev(self) -> str:
        published = self.published
        if published.hub is not None and published.commit is None:  # every request without a commit asks for it
            return published.commit_of(MAIN)
        return published.file(CONFIG).parent.name

    def commit_of(self, rev: str | None) -> str:
        """The commit that a revision names now, by default `main`: a label may move while its numbers are kept.

        Raises:
            PrismaError: no such revision.
        """
        if rev is None or re.fullmatch("[0-9a-f]{40}", rev):
            return rev or self.rev
        return self.published.file(CONFIG, rev).parent.name

    @cached_property
    def steps(self) -> list[int]:
        return [int(entry["step"]) for entry in self._checkpoints]

    @property
    def final(self) -> Loaded:
        """The model on the branch `main`."""
        return self._load(self.rev)

    def _checkpoint(self, step: int) -> Loaded:
        entry = self._checkpoints[self.steps.index(step)]
        if self.published.commit:
            return self._load(entry["commit"])
        return self._load(self.published.file(CONFIG, entry["revision"]).parent.name)  # a label may move

    def examples(self) -> list[Picture]:
        """The first test images that are published with the mouse."""
        return self._examples

    def kinds(self) -> list[int]:
        """The class of each example; without classes, each is one of its kind."""
        return [i if picture.label is None else picture.label for i, picture in enumerate(self._examples)]

    def test_images(self, most: int) -> list[Picture]:
        images, labels = (x[:most] for x in self.published.probe())
        own = labels if self._objective == CLASSIFICATION.name else None
        return _named(transform_of(self.final).normalise(images), own, self.labels, range(len(images)))

    def probe(self) -> tuple[Tensor, Tensor] | None:
        if self._objective != CLASSIFICATION.name:
            return None
        images, labels = self.published.probe()
        return transform_of(self.final).normalise(images), labels

    def metrics(self) -> list[dict[str, Any]]:
        return list(read_metrics(self.published.file(METRICS)))

    def about(self) -> dict[str, Any]:
        """The test accuracy of `results.json`, or what stands in its place, the task, and the card."""
        results, recipe = (read_json(self.published.file(name)) for name in ("results.json", "recipe.json"))
        name = f"test {HEADLINES[self._objective]}"
        test = next((row for row in results.get("results", []) if row.get("name") == name), None)
        card = self.published.file("README.md").read_text("utf-8", errors="replace")
        found = {"value": float(test["value"]), "n": int(test["n"])} if test else None
        accuracy = found if self._objective == CLASSIFICATION.name else None
        result = {"name": name, **found} if found and not accuracy else None
        task, text = recipe.get("task"), card.partition("\n---\n")[2]
        about = str(task.get("name", "")) if isinstance(task, dict) else ""
        return {"accuracy": accuracy, "result": result, "task": about, "card": text}

    def code(self, step: int) -> str:
        hub = "" if self.published.hub is None else f", hub={str(self.published.hub)!r}"
        commit = self._checkpoints[self.steps.index(step)]["commit"]  # the label may name another one later
        return f"loaded = prisma.load({self.name!r}, {commit!r}{hub})"

    def code_of(self, picture: Picture) -> str:
        if not picture.img.isdigit():
            return super().code_of(picture)
        return self._code_of_probe(f"{picture.img}:{int(picture.img) + 1}")

    def code_of_examples(self, count: int) -> str:
        return self._code_of_probe(f":{count}")

    def _code_of_probe(self, part: str) -> str:
        hub = "" if self.published.hub is None else f", Path({str(self.published.hub)!r})"
        return f"loaded.transform.normalise(Published({self.name!r}{hub}, commit={self.rev!r}).probe()[0][{part}])"

    @cached_property
    def _checkpoints(self) -> list[dict[str, Any]]:
        entries = self.published.checkpoints()
        if not entries:
            raise PrismaError(f"expected a list of checkpoints in {self.published.repo}; found an empty one")
        return entries

    @cached_property
    def _examples(self) -> list[Picture]:
        return self.test_images(N_EXAMPLES)

    @cached_property
    def _objective(self) -> str:
        """What it was trained for: where that is not classification, the logits are not those of the labels."""
        try:
            recipe = read_json(self.published.file(RECIPE))
        except PrismaError:  # the views need none
            recipe = {}
        return objective_of(recipe)

    def _load(self, commit: str) -> Loaded:
        return LOADED.get((self.published.hub, self.name, commit), lambda: self._read(commit))

    def _read(self, commit: str) -> Loaded:
        folder = self.published.file(CONFIG, commit).parent
        self.published.file(WEIGHTS, commit)
        return expect_still_images(load(folder))


@dataclass(frozen=True)
class Shipped(Subject):
    """A mouse in the package, `mice/NAME`: its final weights, and the test images of its task as examples.

    Attributes:
        first: a class of which some images come first among the examples.
    """

    ref: str
    first: int | None = None

    @property
    def name(self) -> str:
        return self.ref

    @property
    def steps(self) -> list[int]:
        """One checkpoint: the end of training."""
        return [recipe(self._recipe).training.steps]

    @property
    def final(self) -> Loaded:
        return LOADED.get(self.ref, lambda: load(self.ref))

    def _checkpoint(self, step: int) -> Loaded:
        return self.final

    def examples(self) -> list[Picture]:
        return self._examples

    def kinds(self) -> list[int]:
        return [i if picture.label is None else picture.label for i, picture in enumerate(self._examples)]

    def test_images(self, most: int) -> list[Picture]:
        return self._at(self._spread(N_PROBE)[:most])

    def probe(self) -> tuple[Tensor, Tensor] | None:
        if self._objective != CLASSIFICATION.name:
            return None
        images, labels = self._task.inputs("test")
        chosen = self._spread(N_PROBE)
        return images[chosen], labels[chosen]

    def about(self) -> dict[str, Any]:
        """What its task is."""
        return {"task": self._task.name, "card": f"{self._task.summary}\n\n{self._task.source}"}

    def code_of(self, picture: Picture) -> str:
        if not picture.img.isdigit():
            return super().code_of(picture)
        index = self._chosen[int(picture.img)]
        return f'task({self._task.name!r}).inputs("test")[0][{index}:{index + 1}]'

    def code_of_examples(self, count: int) -> str:
        spread, last = self._spread(N_PROBE), len(self._task.splits["test"].labels) - 1
        rule = f"[round(i * {last} / {N_PROBE - 1}) for i in range({count})]"  # shorter to read than the indices
        return f'task({self._task.name!r}).inputs("test")[0][{rule if len(spread) == N_PROBE else spread[:count]}]'

    @property
    def _recipe(self) -> str:
        return self.ref.removeprefix("mice/")

    @property
    def _objective(self) -> str:
        return recipe(self._recipe).training.objective

    @property
    def _task(self) -> Task:
        return task(recipe(self._recipe).task)

    @cached_property
    def _examples(self) -> list[Picture]:
        return self._at(self._chosen)

    def _at(self, indices: Sequence[int]) -> list[Picture]:
        inputs, labels = self._task.inputs("test")
        own = labels if self._objective == CLASSIFICATION.name else None
        return _named(inputs, own, self.labels, indices)

    @cached_property
    def _chosen(self) -> list[int]:
        """Indices of the test images that are examples."""
        labels = self._task.splits["test"].labels
        own = [] if self.first is None else (labels == self.first).nonzero()[:N_FIRST, 0].tolist()
        return [*own, *(i for i in self._spread(N_EXAMPLES) if i not in own)][:N_EXAMPLES]

    def _spread(self, count: int) -> list[int]:
        """Indices of test images, evenly spread: some tasks have one class after the other."""
        last = len(self._task.splits["test"].labels) - 1
        return sorted({round(i * last / (count - 1)) for i in range(count)})


def _named(inputs: Tensor, labels: Tensor | None, known: Sequence[str], indices: Sequence[int]) -> list[Picture]:
    """The images of these indices, as examples; with their classes, if the model tells these."""
    made = []
    for example, index in enumerate(indices):
        if labels is None:
            made.append(Picture(f"Test image {index}", inputs[index], str(example)))
            continue
        label = int(labels[index])
        name = known[label] if label < len(known) else f"class {label}"
        made.append(Picture(f"Test image {index}, labelled {name}", inputs[index], str(example), label))
    return made


def shipped() -> list[str]:
    """The names of the mice in the package, `mice/NAME`; the one that is nicest to look at comes first."""
    names = sorted(folder.name for folder in MICE.iterdir() if (folder / CONFIG).is_file())
    return [f"mice/{name}" for name in sorted(names, key=lambda name: name != "sprites")]


def pinned(mouse: Mouse, rev: str | None) -> Mouse:
    """The mouse at the commit `rev`; without one, at the commit that `main` has now.

    Raises:
        PrismaError: no such commit.
    """
    return Mouse(replace(mouse.published, commit=rev or mouse.rev))


def mice(hub: Path | None, model: str | None) -> list[str]:
    """The names of the mice that the app shows: all of a folder hub, one on the Hub, or those in the package.

    Raises:
        PrismaError: the hub does not exist or is empty, or it does not have this model.
    """
    if hub is None:
        if model is None:
            return shipped()
        return [Published(model).repo]
    known = published_in(hub)
    if not known:
        raise PrismaError(f"expected a published mouse in the hub {hub}; found none. `prisma publish` adds one")
    if model is not None and model not in known:
        raise PrismaError(f"{model} is not published in the hub {hub}; the nearest: {nearest(model, known)}")
    return known
