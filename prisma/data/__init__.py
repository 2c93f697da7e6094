"""The tasks that mice are trained on."""

from collections.abc import Mapping

from prisma.data.digits import DIGITS
from prisma.data.induction import INDUCTION
from prisma.data.sprites import SPRITES, SPRITES_NEUTRAL
from prisma.data.task import Task
from prisma.errors import PrismaError, nearest

TASKS: Mapping[str, Task] = {task.name: task for task in (DIGITS, INDUCTION, SPRITES, SPRITES_NEUTRAL)}


def task(name: str) -> Task:
    """A task by name. Raises PrismaError, with the nearest names, if there is none."""
    if name not in TASKS:
        raise PrismaError(f"there is no task {name!r}; the nearest: {nearest(name, TASKS)}")
    return TASKS[name]
