"""Pictures to analyse a model with: those of a folder, or the test images of a task, read a few at a time."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from warnings import catch_warnings

import torch
from torch import Tensor

from prisma.data import TASKS, task
from prisma.data.transform import Transform, no_image
from prisma.errors import PrismaError, nearest

REFERENCE = 64
NAMED = 3  # the largest number of pictures that an error message names
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Pictures:
    """A data set that is read by index, in the order of `names`."""

    names: tuple[str, ...]  # one per picture: its path in the folder, or its index in the task
    sha256: str  # changes when a picture changes
    read: Callable[[Sequence[int]], Tensor]  # indices -> the model's inputs [image, channel, height, width]
    masks: Tensor | None = None  # [image, height, width], bool: true on the object, if known

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def reference(self) -> Tensor:
        """The first 64 pictures, for averages over the data set: they do not depend on which pictures are analysed."""
        return self.read(range(min(REFERENCE, len(self))))


def pictures(
    ref: str | Path, transform: Transform | None, input_shape: Sequence[int], first: int | None = None
) -> Pictures:
    """The pictures of a folder and its subfolders, sorted by path; or the test images of a task, with their masks.

    Args:
        ref: a folder, or the name of a task; write `./NAME` for a folder that has the name of a task.
        transform: the model's transform.
        input_shape: the shape of one input of the model, (channel, height, width).
        first: use only the first N pictures.

    Raises:
        PrismaError: no such folder or task, no pictures, pictures that cannot be read (they are named), or a model that
            takes inputs of another shape.
    """
    if len(input_shape) != 3:
        raise PrismaError(f"expected a model of images; found a model of video with inputs {list(input_shape)}")
    if "://" in str(ref) or Path(ref).expanduser().is_file():
        found = "an address: download the pictures" if "://" in str(ref) else "a file"
        raise PrismaError(f"expected a folder of pictures or the name of a task; found {found}, and give their folder")
    if str(ref) in TASKS or not Path(ref).expanduser().is_dir():
        return _of_task(str(ref), transform, tuple(input_shape), first)
    return _of_folder(Path(ref).expanduser(), transform, first)


def _of_task(name: str, transform: Transform | None, input_shape: tuple[int, ...], first: int | None) -> Pictures:
    try:
        data = task(name)
    except PrismaError:
        raise PrismaError(
            f"expected a folder of pictures or the name of a task; found {name!r}, the nearest task: "
            f"{nearest(name, TASKS)}"
        ) from None
    split, chosen = data.splits["test"], transform or data.transform
    if split.images.shape[1:] != input_shape:
        raise PrismaError(
            f"expected images {list(input_shape)}, the model's input; found {list(split.images.shape[1:])} in the task "
            f"{name}"
        )
    images = chosen.normalise(split.images[:first])
    return Pictures(
        names=tuple(f"{name}/test/{i}" for i in range(len(images))),
        sha256=data.sha256,
        read=lambda rows: images[torch.as_tensor(rows, dtype=torch.long)],
        masks=None if split.masks is None else split.masks[:first],
    )


def _of_folder(folder: Path, transform: Transform | None, first: int | None) -> Pictures:
    if transform is None:
        raise PrismaError(
            f"expected a model with a transform, to read the pictures in {folder}; found none: the model has no "
            "preprocessor_config.json (transformers) or preprocess_cfg (open_clip) beside its weights, or one "
            "that Prisma cannot reproduce; save the model's image processor into its folder"
        )
    files = _picture_files(folder)[:first]
    if not files:
        raise PrismaError(f"expected pictures in {folder}; found none")
    _expect_readable({str(path.relative_to(folder)): path for path in files}, _open)
    names = tuple(str(path.relative_to(folder)) for path in files)

    def read(rows: Sequence[int]) -> Tensor:
        found = _expect_readable({names[i]: files[i] for i in rows}, transform)
        return torch.stack([found[names[i]] for i in rows])

    return Pictures(names, _list_hash(names, files), read)


def _picture_files(folder: Path) -> list[Path]:
    """All files whose suffix is that of a format that PIL opens, except hidden ones."""
    from PIL import Image

    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _list_hash(names: Sequence[str], files: Sequence[Path]) -> str:
    """A hash of names, sizes and modification times: to read every byte of a large data set takes too long."""
    digest = hashlib.sha256()
    for name, stat in zip(names, (path.stat() for path in files), strict=True):
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _open(path: Path) -> None:
    """Raises PrismaError unless the file begins like a picture."""
    from PIL import Image

    try:
        with catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(path):
            pass
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PrismaError(f"expected an image at {path}; found {no_image(path, error)}") from error


def _expect_readable(files: dict[str, Path], read: Callable[[Path], _Read]) -> dict[str, _Read]:
    """Name -> the content that was read. Raises PrismaError, which names the files that cannot be read."""
    found, wrong = {}, dict[str, PrismaError]()
    for name, path in files.items():
        try:
            found[name] = read(path)
        except PrismaError as error:
            wrong[name] = error
    if len(wrong) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        others = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise PrismaError(f"{len(wrong)} pictures cannot be read: {', '.join(list(wrong)[:NAMED])}{others}")
    return found
