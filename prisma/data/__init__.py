"""The tasks (data sets) that mice are trained on."""

import re
from collections.abc import Mapping

from prisma.data.circle import CIRCLE, circle
from prisma.data.clevr import CLEVR
from prisma.data.digits import DIGITS
from prisma.data.dsprites import DSPRITES, dsprites, dsprites_grid
from prisma.data.induction import INDUCTION
from prisma.data.polygenic import POLYGENIC
from prisma.data.sprites import SPRITES, SPRITES_NEUTRAL
from prisma.data.task import Task
from prisma.errors import PrismaError, nearest

__all__ = ["TASKS", "dsprites", "dsprites_grid", "task"]

TASKS: Mapping[str, Task] = {
    task.name: task for task in (DIGITS, INDUCTION, POLYGENIC, CIRCLE, SPRITES, SPRITES_NEUTRAL, *CLEVR, *DSPRITES)
}


_OTHER_CIRCLE = re.compile(r"circle-(\d{1,4})")


def task(name: str) -> Task:
    """A task by name, or `circle-P` for modular addition of another modulus.

    Raises:
        PrismaError: there is no such task (the nearest names are given), or P is not a modulus of the circle task.
    """
    if match := _OTHER_CIRCLE.fullmatch(name):
        return circle(int(match[1]))
    if name not in TASKS:
        raise PrismaError(f"there is no task {name!r}; the nearest: {nearest(name, TASKS)}")
    return TASKS[name]
