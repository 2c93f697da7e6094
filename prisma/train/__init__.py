"""Training a mouse: the loop and what it is made of."""

from prisma.train.config import Recipe, TrainConfig
from prisma.train.loop import train
from prisma.train.run_folder import is_finished, is_run

__all__ = ["Recipe", "TrainConfig", "is_finished", "is_run", "train"]
