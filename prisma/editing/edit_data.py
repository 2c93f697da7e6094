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
"""How many images of a task are read: the first of each split."""


@dataclass(frozen=True, eq=False)
class EditData:
    """Model inputs with their labels, and the coverage of their patches where objects have masks."""

    images: Tensor
    labels: Tensor
    coverage: Tensor | None
    test_images: Tensor
    test_labels: Tensor
    test_coverage: Tensor | None


def edit_data(ref: str | Path, loaded: Loaded, limit: int | None = None) -> EditData:
    """The training and test images of a task; or a folder, of whose pictures every second of each class is for testing.

    Args:
        ref: the name of a task, or a folder whose subfolders are the model's classes.
        limit: use only so many images to make the edit with.

    Raises:
        PrismaError: no such images, images without classes, or of another size than the model takes.
    """
    if str(ref) not in TASKS:
        return _of_folder(ref, loaded, limit)
    data = task(str(ref))
    if data.transform.size != loaded.config.image_sides or len(data.transform.mean) != loaded.config.channels:
        raise PrismaError(
            f"expected images of {loaded.config.image_sides}, as the model takes; found {data.transform.size}"
        )
    transform, parts = loaded.transform or data.transform, []
    for split, most in (("train", limit or MADE_WITH), ("test", MEASURED_ON)):
        found = data.splits[split]
        masks = None if found.masks is None else found.masks[:most]
        covered = None if masks is None else coverage(masks, loaded.config.patch_size).flatten(1)
        parts += [transform.normalise(found.images[:most]), found.labels[:most], covered]
    return EditData(*parts)  # type: ignore[arg-type]


def _of_folder(ref: str | Path, loaded: Loaded, limit: int | None) -> EditData:
    found = pictures(ref, loaded.transform, loaded.config.input_shape, classes=loaded.labels)
    if found.labels is None:
        raise PrismaError(
            f"expected a folder whose subfolders are the classes of the model in {quoted(str(ref))}; found other names"
        )
    order = torch.zeros(len(found), dtype=torch.long)
    for some in (found.labels == c for c in found.labels.unique()):
        order[some] = torch.arange(int(some.sum()))
    made, held = ((order % 2 == i).nonzero()[:, 0] for i in (0, 1))
    made = made[:limit]
    return EditData(
        found.read(made.tolist()), found.labels[made], None, found.read(held.tolist()), found.labels[held], None
    )
