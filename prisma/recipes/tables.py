"""Training a table of recipes: our accuracies beside those that were published."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError, nearest
from prisma.recipes import TABLES
from prisma.train import Recipe
from prisma.train.seeds import over_seeds, train_seeds


def train_table(
    name: str,
    out: Path,
    seeds: Sequence[int] = (0,),
    *,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
    data: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Train the recipes of a table, the first seed of all before the others, each into `out/RECIPE/seed-SEED`.

    Args:
        data: where the recipes' data are, if they do not come with the package.

    Yields:
        After each recipe, its row: `row_of`.

    Raises:
        PrismaError: no such table (the nearest is named); otherwise as `prisma.train`.
    """
    if name not in TABLES:
        raise PrismaError(f"there is no table {name!r}; the nearest: {nearest(name, TABLES)}")
    found: dict[str, list[dict[str, Any]]] = {}
    for some in (seeds[:1], seeds[1:]):
        for recipe in TABLES[name] if some else ():
            command = f"prisma train {recipe.name}{'' if data is None else ' --data PATH'}"
            here = recipe if data is None else replace(recipe, task=f"{recipe.task}:{data}")
            results = train_seeds(
                here, out / recipe.name, some, resume=resume, device=device, command=command, progress=progress
            )
            found.setdefault(recipe.name, []).extend(results)
            yield row_of(recipe, found[recipe.name])


def row_of(recipe: Recipe, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row: the mean accuracy over seeds, the least, and whether the published one is reached as it is rounded."""
    ours, published = over_seeds(results), recipe.published_accuracy
    return {
        "recipe": recipe.name,
        "parameters": results[0]["parameters"],
        "steps": recipe.training.steps,
        "seeds": len(results),
        "accuracy": ours["mean"],
        "least": ours["least"],
        "published": published,
        "reached": published is None or round(ours["least"], 3) >= published,
        "seconds": sum(found.get("seconds", 0) for found in results),
    }
