"""The numbers of a coder beside it, in `evaluation.json`: the rows of `evaluate`, and which weights they are of.

`prisma sparse eval --write` writes the file, and the card of a published coder has its numbers.
"""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError, shown
from prisma.files import read_json, sha256, write_json
from prisma.sparse.files import WEIGHTS

EVALUATION = "evaluation.json"


def write_evaluation(folder: Path, rows: Sequence[dict[str, Any]], images: str, n: int) -> None:
    """Keep the rows of `evaluate` beside a coder.

    Args:
        images: what they were measured on, as a person calls it.
        n: how many images.

    Raises:
        PrismaError: the folder holds no coder in the format of SAELens.
    """
    if not (folder / WEIGHTS).is_file():
        raise PrismaError(f"expected the folder of a coder, with {WEIGHTS}, to keep its numbers in; found {folder}")
    rows = as_json(rows)
    write_json(folder / EVALUATION, {"weights": sha256(folder / WEIGHTS), "images": images, "n": n, "rows": rows})


def as_json(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as JSON has them: null in the place of what is no finite number, for which JSON has no word."""
    return [{n: None if isinstance(x, float) and not isfinite(x) else x for n, x in row.items()} for row in rows]


def read_evaluation(folder: Path) -> dict[str, Any]:
    """`{"weights", "images", "n", "rows"}` of a coder's folder.

    Raises:
        PrismaError: there are no such numbers, or they are of other weights than those beside them.
    """
    if not (folder / EVALUATION).is_file():
        raise PrismaError(
            f"expected {EVALUATION}, the numbers of the coder and of its baselines, in {folder}; found none: "
            "prisma sparse eval CODER --model REF --images DIR --write makes it"
        )
    found = read_json(folder / EVALUATION)
    if not isinstance(found.get("rows"), list):
        raise PrismaError(f"expected the numbers of a coder in {folder / EVALUATION}; found something else")
    if found.get("weights") != (here := sha256(folder / WEIGHTS)):
        raise PrismaError(
            f"expected numbers of these weights, {here[:12]}, in {folder / EVALUATION}; found those of "
            f"{shown(str(found.get('weights')), 12)}: measure the coder again with prisma sparse eval --write"
        )
    return found
