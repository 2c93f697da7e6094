"""Editing weights: the least change after which chosen keys have chosen values, as a value that can be undone."""

from prisma.editing.rank_one import Covariance, SecondMoment, least_change
from prisma.editing.value import Optimum, optimal_value
from prisma.editing.weight_edit import Applied, LowRank, WeightEdit, source_of

__all__ = [
    "Applied",
    "Covariance",
    "LowRank",
    "Optimum",
    "SecondMoment",
    "WeightEdit",
    "least_change",
    "optimal_value",
    "source_of",
]
