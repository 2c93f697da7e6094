"""The images of a task on the device of a run."""

from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor

from prisma.data import task
from prisma.data.task import Split


@lru_cache(maxsize=1)
def data_on(name: str, place: str, first: int) -> tuple[Split, Mapping[str, tuple[Tensor, Tensor]]]:
    """(the training images of a task, and of each split the first images to evaluate, normalised), on a device.

    Runs of one task share them: they are kept until those of another are asked for.
    """
    data = task(name)
    images = Split(data.splits["train"].images.to(place), data.splits["train"].labels.to(place))
    some = {split: data.inputs(split, first) for split in ("test", "train")}
    return images, {split: (x.to(place), y.to(place)) for split, (x, y) in some.items()}
