"""The tasks (data sets) that mice are trained on."""

import re
from collections.abc import Mapping

from prisma.data.cifar import cifar
from prisma.data.circle import CIRCLE, circle
from prisma.data.clevr import CLEVR
from prisma.data.counterfactuals import counterfactuals
from prisma.data.digits import DIGITS
from prisma.data.dsprites import DSPRITES, dsprites, dsprites_grid
from prisma.data.hub_sets import hub_set
from prisma.data.induction import INDUCTION
from prisma.data.mnist import mnist
from prisma.data.own import task_of
from prisma.data.pairs import PAIRS
from prisma.data.patch_labels import PatchLabels, Segmentations, patch_labels
from prisma.data.picture_sets import picture_set
from prisma.data.places import ABSENT, task_at
from prisma.data.polygenic import POLYGENIC
from prisma.data.sprites import SPRITES, SPRITES_NEUTRAL
from prisma.data.task import Task
from prisma.errors import PrismaError, nearest, quoted

__all__ = [
    "TASKS",
    "PatchLabels",
    "Segmentations",
    "add",
    "cifar",
    "counterfactuals",
    "dsprites",
    "dsprites_grid",
    "hub_set",
    "is_added",
    "known_task",
    "mnist",
    "package_task",
    "patch_labels",
    "picture_set",
    "task",
    "task_of",
]

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (DIGITS, PAIRS, INDUCTION, POLYGENIC, CIRCLE, SPRITES, SPRITES_NEUTRAL, *CLEVR, *DSPRITES)
}

_ADDED: dict[str, Task] = {}  # tasks of one's own, by name

_MEANING = {"sha256": "other data", "labels": "other classes", "transform": "another input", "targets": "other targets"}
"""What a name stands for: a field of a task, and what a task is of which it is another."""

_OTHER_CIRCLE = re.compile(r"circle-(\d{1,4})")


def add(own: Task) -> Task:
    """Make a task of your own known by its name in this process, so that recipes can name it; return it.

    Raises:
        PrismaError: a task of the package has this name, or one with other data, classes or another transform.
    """
    if own.name in TASKS or _OTHER_CIRCLE.fullmatch(own.name):
        if TASKS.get(own.name) is own:
            return own
        raise PrismaError(f"expected a name that no task of the package has; found {own.name!r}")
    known = _ADDED.setdefault(own.name, own)
    for field, what in _MEANING.items():
        if getattr(known, field) != getattr(own, field):
            raise PrismaError(f"expected a new name for {what}; found {own.name!r}, which was added with others before")
    return known


def is_added(name: str) -> bool:
    """Whether a task was added in this process: another process does not know it."""
    return name in _ADDED


def task(name: str) -> Task:
    """A task by name, one that was added, `circle-P` for another modulus, or `NAME:PATH` for data on this machine.

    Raises:
        PrismaError: there is no such task (the nearest names are given), P is not a modulus of the circle task, or
            there are no such data at PATH.
    """
    return found if (found := task_at(name)) is not None else known_task(name)


def known_task(name: str) -> Task:
    """The same, of a name that a file of somebody else states: data at a place are none, and no place is looked at.

    Raises:
        PrismaError: there is no such task (the nearest names are given), or P is not a modulus of the circle task.
    """
    if match := _OTHER_CIRCLE.fullmatch(name):
        return circle(int(match[1]))
    known = {**ABSENT, **TASKS, **_ADDED}
    if name not in known:
        raise PrismaError(f"there is no task {quoted(name)}; the nearest: {nearest(name, known)}")
    return known[name]


def package_task(name: str) -> Task:
    """A task whose data this package itself makes, the same on every machine.

    Raises:
        PrismaError: there is none of this name; data that were added in this process, or are at a place, are others.
    """
    if ":" in name or name in ABSENT or is_added(name):
        raise PrismaError(
            f"expected a task whose data this package makes, the same on every machine; found {quoted(name)}"
        )
    return known_task(name)
