"""Your own data as a task: a pair of tensors, a torch data set, or a data set of the library `datasets`.

Images are kept as bytes, so floats are rounded to 8 bits, except in a pair of tensors. `prisma.data.add` makes a task
known by its name in this process, so that recipes can name it.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from prisma.bounds import expect_within
from prisma.data.decoding import SKIPPED, Picture, UnreadableError, decoded, picture_of
from prisma.data.picture_sets import drawn_for_testing
from prisma.data.task import Split, Task
from prisma.data.transform import Transform, as_bytes, opened
from prisma.errors import PrismaError, quoted

PLAIN = ((0.0,), (1.0,)), ((0.5,) * 3, (0.5,) * 3)  # mean and std of grey and of coloured images

GREY = ("1", "L", "I;16")  # modes of PIL


@runtime_checkable
class Rows(Protocol):
    """A data set by index, such as torch's: a row is (image, label), or {"image": ..., "label": ...}."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


Data = tuple[Tensor, Tensor] | Rows
IMAGES, LABELS = ("image", "img", "images", "pixel_values"), ("label", "labels", "fine_label")


def task_of(
    name: str,
    train: Data,
    test: Data | None = None,
    *,
    labels: Sequence[str] | None = None,
    transform: Transform | None = None,
    source: str = "own data",
    license: str | None = None,
    skipped: float = SKIPPED,
) -> Task:
    """A task of your own data.

    Args:
        name: what recipes and files call it.
        train: images [n, channel, height, width] or [n, height, width] (floats in [0, 1], bytes, or bool) and labels
            [n]; or rows (image, label) by index: an image is a tensor as above, an array [height, width(, channel)] or
            a PIL picture.
        test: the same, of the test images. If there are none, a tenth of each class is drawn, always the same.
        labels: the names of the classes; by default those that `datasets` states, or the numbers.
        transform: the size, mean and std of the model's input; by default the size of the first image, and
            (x - 0.5) / 0.5 of colours and x of grey.
        source: where the data come from, for cards.
        license: theirs, as the Hub names it.
        skipped: the largest share of rows whose picture may fail to decode.

    Raises:
        PrismaError: images and labels that do not belong together, of a wrong kind, or not whole numbers from 0; the
            sentence says which.
    """
    named = labels if labels is not None else _names_of(train)
    first = _split(train, transform, skipped)
    second = None if test is None else _split(test, transform, skipped)
    if second is not None and second.images.shape[1:] != first.images.shape[1:]:
        raise PrismaError(
            f"expected test images {list(first.images.shape[1:])}, as for training; found "
            f"{list(second.images.shape[1:])}"
        )
    most = 1 + max(int(split.labels.max()) for split in (first, second) if split is not None)
    expect_within("n_classes", most, "the largest label and 1, the number of classes,")
    if named is not None and (len(set(named)) != len(named) or most > len(named)):
        raise PrismaError(f"expected different names for {most} classes; found {quoted(list(named))}")
    names = tuple(named) if named is not None else tuple(str(i) for i in range(most))
    if second is None:
        first, second = divided(first, len(names))
    channels, *size = first.images.shape[1:]
    mean, std = PLAIN[channels == 3]
    n = len(first.labels) + len(second.labels)
    return Task.of_splits(
        name,
        first,
        second,
        labels=names,
        transform=transform or Transform(size=(size[0], size[1]), mean=mean, std=std),
        summary=f"Which of {len(names)} classes? {n:,} images of {size[0]}x{size[1]} pixels.",
        source=source,
        license=license,
    )


def divided(split: Split, n_classes: int) -> tuple[Split, Split]:
    """(train, test): a tenth of each class is drawn for testing, always the same."""
    chosen = torch.from_numpy(drawn_for_testing(split.labels.numpy(), n_classes))
    if not chosen.any():
        raise PrismaError("expected two images of a class or more, to draw test images from; found fewer")
    return Split(split.images[~chosen], split.labels[~chosen]), Split(split.images[chosen], split.labels[chosen])


def _split(data: Data, transform: Transform | None, skipped: float) -> Split:
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(x, Tensor) for x in data):
        return _of_tensors(*cast("tuple[Tensor, Tensor]", data))
    if not isinstance(data, Rows) or isinstance(data, str | bytes | Mapping):
        raise PrismaError(
            f"expected a pair of tensors (images, labels), or a data set with a length and rows; found "
            f"{type(data).__name__}"
        )
    return _of_rows(data, transform, skipped)


def _of_tensors(images: Tensor, labels: Tensor) -> Split:
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3) or labels.shape != images.shape[:1] or not images.numel():
        raise PrismaError(
            f"expected images [n, 1 or 3, height, width] and labels [n]; found {list(images.shape)} and "
            f"{list(labels.shape)}"
        )
    kind = labels.dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool or labels.min() < 0:
        found = f"{kind}" if kind.is_complex else f"{kind} from {labels.min()}"
        raise PrismaError(f"expected labels that are whole numbers from 0; found {found}")
    if images.dtype not in (torch.bool, torch.uint8):
        if not images.dtype.is_floating_point or not (images.min() >= 0 and images.max() <= 1):
            ends = "" if images.dtype.is_complex else f" from {images.min():g} to {images.max():g}"
            raise PrismaError(f"expected images of floats in [0, 1], bytes or bool; found {images.dtype}{ends}")
        images = images.float()
    return Split(images.detach().cpu().contiguous(), labels.detach().cpu().long())


def _of_rows(data: Rows, transform: Transform | None, skipped: float) -> Split:
    """Row by row, in this thread: a stranger's data set may not bear several."""
    if not len(data):
        raise PrismaError("expected a data set with images; found an empty one")
    how = transform or _as_it_is(_pair(_row(data, 0), 0)[0])
    pictures = (Picture(f"row {i}", partial(_read, data, i, how)) for i in range(len(data)))
    found = decoded(pictures, len(data), (len(how.mean), *how.size), None, skipped, workers=1)
    return Split(found.images, found.labels)


def _read(data: Rows, i: int, how: Transform) -> tuple[Tensor, int]:
    image, label = _pair(_row(data, i), i)
    if isinstance(image, Tensor):
        pixels = as_bytes(_of_tensors(image[None], torch.zeros(1, dtype=torch.int64)).images[0])
    else:
        try:
            pixels = as_bytes(how.plain(_opened(image)))
        except PrismaError as error:
            raise UnreadableError(error) from None
    if pixels.shape != (shape := (len(how.mean), *how.size)):
        raise PrismaError(f"expected images {list(shape)} in all rows; found {list(pixels.shape)} in row {i}")
    return pixels, label


def _row(data: Rows, i: int) -> Any:
    try:
        return data[i]
    except Exception as error:  # of any kind: the data set's own code decodes the picture
        raise UnreadableError(f"expected a row {i}; found {type(error).__name__}: {error}") from error


def _pair(row: Any, i: int) -> tuple[Any, int]:
    """(image, label) of a row."""
    if isinstance(row, Mapping):
        keys = [next((key for key in known if key in row), None) for known in (IMAGES, LABELS)]
        row = tuple(row[key] for key in keys if key is not None)
    if not isinstance(row, tuple | list) or len(row) < 2:
        raise PrismaError(
            f"expected rows (image, label) or with the keys image and label; found {quoted(row)} in row {i}"
        )
    image, label = row[:2]
    number = label.item() if isinstance(label, Tensor | np.generic) and np.ndim(label) == 0 else label
    if type(number) is not int or number < 0:
        raise PrismaError(f"expected labels that are whole numbers from 0; found {quoted(label)} in row {i}")
    return image, number


def _opened(image: Any) -> Any:
    """A PIL picture, an array or a path; of the bytes of a file, the picture."""
    if isinstance(image, Mapping) and image.get("bytes"):
        return picture_of(image["bytes"])
    return image["path"] if isinstance(image, Mapping) and image.get("path") else image


def _as_it_is(image: Any) -> Transform:
    """The transform that leaves images of this size as they are."""
    if isinstance(image, Tensor):
        channels, *size = image.shape if image.ndim == 3 else (1, *image.shape)
    elif isinstance(found := _opened(image), np.ndarray):
        size, channels = list(found.shape[:2]), 1 if found.ndim == 2 or found.shape[2] == 1 else 3
    elif not isinstance(found, str | Path) and not hasattr(found, "mode"):
        raise PrismaError(f"expected images as tensors, arrays, PIL pictures or paths; found {quoted(image)} in row 0")
    else:
        with opened(found) if isinstance(found, str | Path) else nullcontext(found) as picture:
            size, channels = [picture.height, picture.width], 1 if picture.mode in GREY else 3
    if len(size) != 2 or channels not in (1, 3):
        raise PrismaError(f"expected images with 1 or 3 channels; found {quoted(image)}")
    mean, std = PLAIN[channels == 3]
    return Transform(size=(size[0], size[1]), mean=mean, std=std)


def _names_of(data: Data) -> tuple[str, ...] | None:
    """The names of the classes that a data set states: `features` of `datasets`, `classes` of torchvision."""
    features = getattr(data, "features", None) or {}
    named = next((getattr(features[key], "names", None) for key in LABELS if key in features), None)
    named = named or getattr(data, "classes", None)
    return tuple(str(name) for name in named) if isinstance(named, list | tuple) and named else None
