"""Which images did a step see? The batch of any step of a run, from the data order that its recipe records."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.checkpoint import to_safetensors
from prisma.data import known_task
from prisma.data.transform import as_floats
from prisma.errors import PrismaError, expect_packages, quoted, shown
from prisma.fields import from_dict
from prisma.files import read_json, write_atomic
from prisma.filesystem import given
from prisma.repo_names import is_repo_name
from prisma.repository import Published
from prisma.run_folder import RECIPE, is_run, read_recipe, revision_of, scheduled_steps
from prisma.train.config import TrainConfig
from prisma.train.order import batch_indices, batch_moves, moved

READABLE = 64  # pixels: smaller images are enlarged to about this side in a picture
GAP = 2  # pixels between the images of a picture


@dataclass(frozen=True)
class Batch:
    """The batch of one step, in its order."""

    run: str  # the run's id
    step: int
    indices: Tensor  # [n], int64: of the training images of the task
    labels: Tensor  # [n], int64
    names: tuple[str, ...]  # the class of each image
    moves: Tensor | None  # [n, 3]: pixels down, pixels right, degrees anticlockwise; None where images do not move
    images: Tensor  # [n, channel, height, width] in [0, 1], moved
    inputs: Tensor  # the same as the model gets it: normalised

    def to_dict(self) -> dict[str, Any]:
        """What the batch is, as JSON has it, without the images."""
        rows = zip(self.indices.tolist(), self.labels.tolist(), self.names, strict=True)
        moves: list[Any] = [None] * len(self.labels) if self.moves is None else self.moves.tolist()
        images = [
            {"index": index, "label": label, "name": name} | ({} if move is None else {"move": move})
            for (index, label, name), move in zip(rows, moves, strict=True)
        ]
        return {"run": self.run, "step": self.step, "images": images}

    def write(self, out: Path) -> tuple[Path, Path]:
        """Write a picture and the tensors into a folder, as `batch-000128.png` and `.safetensors`; return both paths.

        Raises:
            PrismaError: pillow is missing, or a file could not be written.
        """
        expect_packages("PIL", extra="train")
        folder, name = given(out), revision_of(self.step).replace("step", "batch")
        kinds = {"indices": self.indices, "labels": self.labels, "images": self.images, "inputs": self.inputs}
        tensors = kinds if self.moves is None else kinds | {"moves": self.moves}
        header = {"run": self.run, "step": str(self.step)}
        picture, whole = folder / f"{name}.png", folder / f"{name}.safetensors"
        write_atomic(picture, _png(grid_of(self.images)))
        write_atomic(whole, to_safetensors(tensors, header))
        return picture, whole


def batch_of(run: Path | str, step: int, hub: Path | None = None) -> Batch:
    """The images, labels and indices that a step of a run was trained on.

    Args:
        run: a run folder, finished or not; or the name OWNER/NAME of a published mouse.
        step: from 0 to the last; of the last step the loss was logged, and no update was made.
        hub: the folder hub of a published mouse; by default it is on the Hugging Face Hub.

    Raises:
        PrismaError: no such run or step, or this version of Prisma has other data under the name of its task.
    """
    return rebuilt(_recipe_of(run, hub), step)


def rebuilt(recipe: Mapping[str, Any], step: int) -> Batch:
    """The batch of a step by what `recipe.json` holds. Raises PrismaError as `batch_of`."""
    config = from_dict(TrainConfig, recipe.get("training"), f"training of {RECIPE}")
    last = scheduled_steps(Path(), recipe)[-1]
    if type(step) is not int or not 0 <= step <= last:
        raise PrismaError(f"expected a step from 0 to {last:,}, the last of the run; found {quoted(step)}")
    stated = recipe.get("task")
    if not isinstance(stated, Mapping) or not isinstance(stated.get("name"), str):
        raise PrismaError(f"expected the name of a task in {RECIPE}; found {quoted(stated)}")
    data = known_task(stated["name"])
    if stated.get("sha256") != data.sha256:
        raise PrismaError(
            f"expected data of hash {shown(stated.get('sha256'))} for the task {data.name}, as the run was trained on; "
            f"found {data.sha256}: another version of Prisma, or other files, made them"
        )
    split = data.splits["train"]
    indices = batch_indices(len(split.labels), config.batch_size, config.order_seed, step)
    labels, images = split.labels[indices], as_floats(moved(split.images[indices], config, step))
    return Batch(
        run=str(recipe.get("run")),
        step=step,
        indices=indices,
        labels=labels,
        names=tuple(data.labels[label] for label in labels.tolist()),
        moves=batch_moves(config.batch_size, config, step) if config.shift or config.turn else None,
        images=images,
        inputs=data.transform.normalise(images),
    )


def grid_of(images: Tensor) -> np.ndarray:
    """Images side by side in rows, white between them: uint8 [height, width, 3]. Small ones are enlarged."""
    n, _, height, width = images.shape
    columns, times = math.ceil(math.sqrt(n)), max(1, READABLE // max(height, width))
    pixels = (images * 255).round().to(torch.uint8).expand(n, 3, height, width)
    large = pixels.repeat_interleave(times, 2).repeat_interleave(times, 3)
    rows = math.ceil(n / columns)
    full = F.pad(large, (0, GAP, 0, GAP, 0, 0, 0, rows * columns - n), value=255)
    grid = full.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    return np.ascontiguousarray(grid[:-GAP, :-GAP].numpy())


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _recipe_of(run: Path | str, hub: Path | None) -> dict[str, Any]:
    folder = given(Path(run))
    if is_run(folder):
        return read_recipe(folder)
    seeds = sorted(path.name for path in folder.glob("seed-*") if is_run(path)) if folder.is_dir() else []
    if seeds:
        raise PrismaError(f"expected one run; found {len(seeds)} of other seeds in {folder}: name {folder / seeds[0]}")
    if folder.exists() or not is_repo_name(str(run)):
        raise PrismaError(f"expected a run folder, or OWNER/NAME of a published mouse; found no {RECIPE} at {folder}")
    return read_json(Published(str(run), hub).file(RECIPE))
