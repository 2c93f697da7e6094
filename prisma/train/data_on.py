"""The images of a task on the device of a run."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from prisma.data import task
from prisma.data.task import Split
from prisma.train.config import Recipe


def data_for(recipe: Recipe, place: torch.device, first: int) -> tuple[Split, Mapping[str, tuple[Tensor, Tensor]]]:
    """The same as `data_on`, with the targets of the recipe's objective in place of the labels."""
    images, inputs = data_on(recipe.task, str(place), first)
    targets = {name: recipe.objective.targets(split) for name, split in task(recipe.task).splits.items()}
    asked = {name: (x, targets[name][: len(x)].to(place)) for name, (x, _) in inputs.items()}
    return Split(images.images, targets["train"].to(place)), asked


@lru_cache(maxsize=1)
def data_on(name: str, place: str, first: int) -> tuple[Split, Mapping[str, tuple[Tensor, Tensor]]]:
    """(the training images of a task, and of each split the first images to evaluate, normalised), on a device.

    Runs of one task share them: they are kept until those of another are asked for.
    """
    data = task(name)
    images = Split(data.splits["train"].images.to(place), data.splits["train"].labels.to(place))
    some = {split: data.inputs(split, first) for split in ("test", "train")}
    return images, {split: (x.to(place), y.to(place)) for split, (x, y) in some.items()}
