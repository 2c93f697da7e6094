"""Converting a mouse that ViT-Prisma trained into a checkpoint folder."""

from dataclasses import replace
from pathlib import Path

from prisma.checkpoint import write_checkpoint
from prisma.config import ViTConfig
from prisma.data import task
from prisma.files import expect_empty, new_folder
from prisma.filesystem import given
from prisma.pretrained.vit_prisma import read_mouse
from prisma.train import Recipe


def import_mouse(path: Path, like: Recipe, out: Path) -> ViTConfig:
    """Write an old mouse of ViT-Prisma as a checkpoint folder, and return its architecture.

    Args:
        like: a recipe for the same task, with the mouse's number of heads and activation. Labels and transform come
            from its task.

    Raises:
        PrismaError: the file holds no such mouse, or a mouse for another task; or `out` holds something already.
    """
    path, out = given(path), given(out)
    expect_empty(out)  # before the work; `new_folder` looks again
    model = read_mouse(path, like.model)
    data = task(replace(like, model=model.config).task)  # a recipe checks that its model fits its task
    with new_folder(out) as folder:
        write_checkpoint(folder, model, labels=data.labels, transform=data.transform.to_dict())
    return model.config
