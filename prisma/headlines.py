"""What a model can be trained for, and the number that says how well it does: how every file of a run calls it."""

from collections.abc import Mapping
from typing import Any

from prisma.errors import PrismaError, quoted

OBJECTIVE = "objective"  # the setting of a recipe that says what was trained for
HEADLINES: Mapping[str, str] = {
    "classification": "accuracy",
    "several": "accuracy",
    "regression": "r2",
    "reconstruction": "r2",
    "masked": "r2",
    "varying": "r2",
}
"""Objective -> its headline, the number beside the loss: the larger the better, at most 1. The first is the default.

The objectives themselves are in `prisma.train.objectives`.
"""


def objective_of(recipe: Mapping[str, Any]) -> str:
    """What a run was trained for, by the content of `recipe.json`.

    Raises:
        PrismaError: something that this version does not know.
    """
    training, default = recipe.get("training"), next(iter(HEADLINES))
    found = training.get(OBJECTIVE, default) if isinstance(training, Mapping) else default
    if not isinstance(found, str) or found not in HEADLINES:
        raise PrismaError(
            f"expected {OBJECTIVE} in recipe.json to be one of {', '.join(HEADLINES)}; found {quoted(found)}"
        )
    return found
