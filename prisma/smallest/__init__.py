"""The smallest model, by its number of weights, that learns a task to a stated accuracy."""

from prisma.smallest.grid import Candidate, Grid, candidates
from prisma.smallest.halving import Found
from prisma.smallest.search import smallest

__all__ = ["Candidate", "Found", "Grid", "candidates", "smallest"]
