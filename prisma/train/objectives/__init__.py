"""What a mouse is trained to do: each objective is an entry of one table."""

from collections.abc import Mapping

from prisma.train.objectives.base import Objective
from prisma.train.objectives.labels import Classification, Regression, Several, Varying
from prisma.train.objectives.pixels import Masked, Reconstruction

__all__ = ["CLASSIFICATION", "OBJECTIVES", "Objective"]

OBJECTIVES: Mapping[str, type[Objective]] = {
    kind.name: kind for kind in (Classification, Several, Regression, Reconstruction, Masked, Varying)
}
"""By name, as the setting `objective` of a recipe."""
CLASSIFICATION = Classification()
"""For images [n] with one label each, whatever their classes are called."""
