"""The recipes: one document per mouse, with its command, its cost, its seeds and the accuracy to expect.

A recipe needs no weights. Some mice are shipped with the package (`prisma/mice/NAME`), and some are not.
"""

from collections.abc import Mapping

from prisma.errors import PrismaError, nearest
from prisma.recipes.circle import CIRCLE
from prisma.recipes.clevr import CLEVR
from prisma.recipes.digits import DIGITS, MASKED, RECONSTRUCTION
from prisma.recipes.dsprites import ALL, OURS, PUBLISHED, TABLE
from prisma.recipes.imagenet import IMAGENET, PIXELS
from prisma.recipes.imagenet import TABLE as IMAGENET_TABLE
from prisma.recipes.induction import INDUCTION, POLYGENIC
from prisma.recipes.mnist import MNIST
from prisma.recipes.pairs import PAIRS, PAIRS_VARYING
from prisma.recipes.sprites import SPRITES
from prisma.train import Recipe

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DIGITS,
        RECONSTRUCTION,
        MASKED,
        PAIRS,
        PAIRS_VARYING,
        INDUCTION,
        POLYGENIC,
        CIRCLE,
        SPRITES,
        CLEVR,
        MNIST,
        ALL,
        *PUBLISHED,
        *OURS,
        *IMAGENET,
        *PIXELS,
    )
}
TABLES: Mapping[str, tuple[Recipe, ...]] = {TABLE: OURS, IMAGENET_TABLE: IMAGENET}
"""Recipes that answer published mice, of which each has the accuracy to reach: `prisma train --table NAME`."""


def recipe(name: str) -> Recipe:
    """A recipe by name. Raises PrismaError, with the nearest names, if there is none."""
    if name not in RECIPES:
        raise PrismaError(f"there is no recipe {name!r}; the nearest: {nearest(name, RECIPES)}")
    return RECIPES[name]
