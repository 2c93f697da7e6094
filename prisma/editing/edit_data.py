"""The images of an edit: some to make it with, others to measure it on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prisma.data import TASKS, task
from prisma.data.pictures import pictures
from prisma.data.task import coverage
from prisma.errors import PrismaError, quoted
from prisma.loaded import Loaded

MADE_WITH, MEASURED_ON = 6000, 2000
"""How many images of a task are read of each split."""


@dataclass(frozen=True, eq=False)
class EditData:
    """Model inputs with their labels, and the coverage of their patches where objects have masks.

    They are in a random order, so that the first of them stand for all. Whatever an edit needs, such as the layer that
    causal tracing finds, is found with the images that it is made with; the test images measure it and nothing else.
    """

    images: Tensor
    labels: Tensor
    coverage: Tensor | None
    test_images: Tensor
    test_labels: Tensor
    test_coverage: Tensor | None


def edit_data(ref: str | Path, loaded: Loaded, limit: int | None = None, seed: int = 0) -> EditData:
    """The training and test images of a task; or a folder, of whose pictures every second of each class is for testing.

    Args:
        ref: the name of a task, or a folder whose subfolders are the model's classes.
        limit: use only so many images to make the edit with.
        seed: by which they are drawn, where there are more.

    Raises:
        PrismaError: no such images, images without classes, or of another size than the model takes.
    """
    if str(ref) not in TASKS:
        return _of_folder(ref, loaded, limit, seed)
    data = task(str(ref))
    if data.transform.size != loaded.config.image_sides or len(data.transform.mean) != loaded.config.channels:
        raise PrismaError(
            f"expected images of {loaded.config.image_sides}, as the model takes; found {data.transform.size}"
        )
    transform, parts = loaded.transform or data.transform, []
    for split, most in (("train", limit or MADE_WITH), ("test", MEASURED_ON)):
        found = data.splits[split]
        rows = _drawn(torch.arange(len(found.labels)), most, seed)
        masks = None if found.masks is None else found.masks[rows]
        covered = None if masks is None else coverage(masks, loaded.config.patch_size).flatten(1)
        parts += [transform.normalise(found.images[rows]), found.labels[rows], covered]
    return EditData(*parts)  # type: ignore[arg-type]


def _drawn(places: Tensor, most: int | None, seed: int) -> Tensor:
    """So many of the places, in a random order."""
    return places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:most]]


def _of_folder(ref: str | Path, loaded: Loaded, limit: int | None, seed: int) -> EditData:
    found = pictures(ref, loaded.transform, loaded.config.input_shape, classes=loaded.labels)
    if found.labels is None:
        raise PrismaError(
            f"expected a folder whose subfolders are the classes of the model in {quoted(str(ref))}; found other names"
        )
    order = torch.zeros(len(found), dtype=torch.long)
    for some in (found.labels == c for c in found.labels.unique()):
        order[some] = torch.arange(int(some.sum()))
    made, held = (_drawn((order % 2 == i).nonzero()[:, 0], most, seed) for i, most in ((0, limit), (1, None)))
    return EditData(
        found.read(made.tolist()), found.labels[made], None, found.read(held.tolist()), found.labels[held], None
    )
