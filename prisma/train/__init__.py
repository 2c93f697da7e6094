"""Training a mouse: from a recipe to a run folder."""

from prisma.train.config import Recipe, TrainConfig
from prisma.train.loop import train

__all__ = ["Recipe", "TrainConfig", "train"]
