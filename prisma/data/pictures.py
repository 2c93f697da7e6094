"""Pictures to analyse a model with: those of a folder, or the test images of a task, read a few at a time."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from prisma.data import TASKS, task
from prisma.data.picture_files import picture_files
from prisma.data.task import Task
from prisma.data.transform import Transform, as_floats, opened
from prisma.errors import PrismaError, listed, nearest, printable, quoted
from prisma.filesystem import given

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
    labels: Tensor | None = None  # [image], int64: the class of each, if known
    training: Callable[[int], tuple[Tensor, Tensor]] | None = None  # n -> the first n training images, and their labels
    task: Task | None = None  # whose test images they are
    transform: Transform | None = None  # with which they are read
    left_out: str = ""  # what else is in the folder, and why it is not read: "2 hidden, 1 not pictures"
    again: "Callable[[Transform | None, Sequence[int]], Pictures] | None" = None  # as `for_model` reads them

    def __len__(self) -> int:
        return len(self.names)

    def for_model(self, transform: Transform | None, input_shape: Sequence[int]) -> "Pictures":
        """The same pictures, in the same order, as another model reads them: of another size, or normalised otherwise.

        Args:
            transform, input_shape: of the other model. With a transform, images of a task are resized too.

        Raises:
            PrismaError: it cannot read them, or it is not known where these came from.
        """
        if self.again is None:
            raise PrismaError("expected pictures of a folder or a task, which can be read anew; found others")
        return self.again(transform, input_shape)

    @cached_property
    def reference(self) -> Tensor:
        """The first 64 pictures, for averages over the data set: they do not depend on which pictures are analysed."""
        return self.read(range(min(REFERENCE, len(self))))


def no_pictures() -> Pictures:
    """None, for what is read from weights alone."""

    def read(rows: Sequence[int]) -> Tensor:
        raise PrismaError("expected pictures; found none")

    return Pictures((), "no pictures", read)


def pictures(
    ref: str | Path,
    transform: Transform | None,
    input_shape: Sequence[int],
    first: int | None = None,
    classes: Sequence[str] = (),
) -> Pictures:
    """The pictures of a folder and its subfolders, sorted by path; or the test images of a task, with their masks.

    Links are followed, each folder once. A file without the ending of a picture is one if its first bytes say so.

    Args:
        ref: a folder, or the name of a task; write `./NAME` for a folder that has the name of a task.
        transform: the model's transform.
        input_shape: the shape of one input of the model, (channel, height, width).
        first: use only the first N pictures.
        classes: names of the model's classes. The pictures of a folder have labels if its subfolders have these names,
            or if there are as many subfolders as classes, in the same order.

    Raises:
        PrismaError: no such folder or task, no pictures, pictures that cannot be read (they are named), or a model that
            takes inputs of another shape.
    """
    if len(input_shape) != 3:
        raise PrismaError(f"expected a model of images; found a model of video with inputs {list(input_shape)}")
    if not isinstance(ref, str | Path):
        raise PrismaError(f"expected a folder of pictures or the name of a task; found {quoted(ref)}")
    if "://" in str(ref) or _is_there(ref, Path.is_file):
        found = "an address: download the pictures" if "://" in str(ref) else "a file"
        raise PrismaError(f"expected a folder of pictures or the name of a task; found {found}, and give their folder")
    if str(ref) in TASKS or not _is_there(ref, Path.is_dir):
        return _of_task(str(ref), transform, tuple(input_shape), first)
    return _of_folder(given(ref), transform, first, classes)


def _is_there(ref: str | Path, kind: Callable[[Path], bool]) -> bool:
    """Whether a file or folder of this name exists; no for what cannot be a name, such as one that is too long."""
    try:
        return kind(given(ref))
    except (OSError, RuntimeError, ValueError):
        return False


def _of_task(name: str, transform: Transform | None, input_shape: tuple[int, ...], first: int | None) -> Pictures:
    try:
        data = task(name)
    except PrismaError:
        raise PrismaError(
            f"expected a folder of pictures or the name of a task; found {quoted(name)}, the nearest task: "
            f"{nearest(name, TASKS)}"
        ) from None
    again = partial(_of_task_for_another, name, first)
    split, chosen = data.splits["test"], transform or data.transform
    if split.images.shape[1:] != input_shape:
        raise PrismaError(
            f"expected images {list(input_shape)}, the model's input; found {list(split.images.shape[1:])} in the task "
            f"{name}"
        )
    images = chosen.normalise(split.images[:first])
    train = data.splits["train"]
    return Pictures(
        names=tuple(f"{name}/test/{i}" for i in range(len(images))),
        sha256=data.sha256,
        read=lambda rows: images[torch.as_tensor(rows, dtype=torch.long)],
        masks=None if split.masks is None else split.masks[:first],
        labels=split.labels[:first],
        training=lambda n: (chosen.normalise(train.images[:n]), train.labels[:n]),
        task=data,
        transform=chosen,
        again=again,
    )


def _of_task_for_another(
    name: str, first: int | None, transform: Transform | None, input_shape: Sequence[int]
) -> Pictures:
    """Its images as a model reads them that may take another size: then they are pictures like those of files."""
    images = task(name).splits["test"].images[:first]
    if transform is None or images.shape[1:] == tuple(input_shape):
        return _of_task(name, transform, tuple(input_shape), first)

    def read(rows: Sequence[int]) -> Tensor:
        shown = as_floats(images[torch.as_tensor(rows, dtype=torch.long)]).permute(0, 2, 3, 1).squeeze(-1)
        return torch.stack([transform(picture) for picture in shown.numpy()])

    own = _of_task(name, None, tuple(images.shape[1:]), first)
    return replace(own, read=read, masks=None, training=None, transform=transform)


def _of_folder(folder: Path, transform: Transform | None, first: int | None, classes: Sequence[str]) -> Pictures:
    if transform is None:
        raise PrismaError(
            f"expected a model with a transform, to read the pictures in {folder}; found none: the model has no "
            "preprocessor_config.json (transformers) or preprocess_cfg (open_clip) beside its weights, or one "
            "that Prisma cannot reproduce; save the model's image processor into its folder"
        )
    found = picture_files(folder)
    files = found.files[:first]
    if not files:
        others = f" (left out: {found.left_out})" if found.skipped else ""
        raise PrismaError(f"expected pictures in {folder}; found none{others}")
    paths = [path.relative_to(folder) for path in files]
    names = tuple(printable(str(path)) for path in paths)
    _expect_readable(names, files, _open)

    def read(rows: Sequence[int]) -> Tensor:
        return torch.stack(_expect_readable([names[i] for i in rows], [files[i] for i in rows], transform))

    of_all = [path.relative_to(folder) for path in found.files]
    labels = _labels(of_all, classes)
    chosen = None if labels is None else labels[: len(files)]
    sha256, again = _list_hash(paths, files), lambda transform, _: _of_folder(folder, transform, first, classes)
    return Pictures(names, sha256, read, labels=chosen, transform=transform, left_out=found.left_out, again=again)


def _labels(paths: Sequence[Path], classes: Sequence[str]) -> Tensor | None:
    """The class of each picture by its subfolder, if the subfolders are the classes."""
    folders = [path.parts[0] if len(path.parts) > 1 else "" for path in paths]
    there = sorted(set(folders))
    if "" in there or not there:
        return None
    if all(list(classes).count(folder) == 1 for folder in there):
        return torch.tensor([list(classes).index(folder) for folder in folders])
    return torch.tensor([there.index(folder) for folder in folders]) if len(there) == len(classes) else None


def _list_hash(paths: Sequence[Path], files: Sequence[Path]) -> str:
    """A hash of names, sizes and modification times: to read every byte of a large data set takes too long."""
    digest = hashlib.sha256()
    for path, stat in zip(paths, (file.stat() for file in files), strict=True):
        digest.update(os.fsencode(path) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _open(path: Path) -> None:
    """Raises PrismaError unless the file begins like a picture."""
    with opened(path):
        pass


def _expect_readable(names: Sequence[str], files: Sequence[Path], read: Callable[[Path], _Read]) -> list[_Read]:
    """The content of each file. Raises PrismaError, which names the files that cannot be read."""
    found, wrong = [], dict[str, PrismaError]()
    for name, path in zip(names, files, strict=True):
        try:
            found.append(read(path))
        except PrismaError as error:
            wrong[name] = error
    if len(wrong) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        raise PrismaError(f"{len(wrong)} pictures cannot be read: {listed(list(wrong), NAMED)}")
    return found
