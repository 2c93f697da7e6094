"""Decoding many pictures once: in workers, into a file of bytes that is then read as a tensor, or into memory.

A picture that cannot be decoded is left out, counted and named, as long as it is one of few; else nothing is read.
The file is in `$PRISMA_CACHE` (`prisma.data.keeping`), and holds a tensor that need not fit into memory: what is
indexed is read.
"""

import hashlib
import io
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prisma.bounds import OWN_LIST
from prisma.data.keeping import cache_folder
from prisma.data.transform import MAX_PIXELS
from prisma.errors import PrismaError, listed, warn
from prisma.fields import conform
from prisma.files import read_json, write_json
from prisma.filesystem import partial_of, remove, sentences

SKIPPED = 0.01  # the largest share of pictures that may be left out
NAMED = 3  # of these, how many a message names
IN_FLIGHT = 64  # pictures for each worker that are asked for ahead

if TYPE_CHECKING:
    from PIL.Image import Image


class UnreadableError(PrismaError):
    """A picture that cannot be decoded."""


_STATED = {"labels": tuple[int, ...], "left_out": tuple[str, ...]}
"""What the file beside the pictures says of them."""

_Found = tuple[Tensor, int] | UnreadableError
_Kept = tuple[Sequence[int], Sequence[str]]  # labels, and the names of what was left out


@dataclass(frozen=True)
class Picture:
    """A picture that is not decoded yet."""

    name: str  # what a message calls it
    read: Callable[[], tuple[Tensor, int]]  # (uint8 [channel, height, width], label), or UnreadableError


@dataclass(frozen=True)
class Decoded:
    """Pictures that were decoded, in order, without those that could not be."""

    images: Tensor  # uint8 [n, channel, height, width], perhaps of a file
    labels: Tensor  # [n], int64
    left_out: tuple[str, ...]  # the names of those that could not be decoded


def decoded(
    pictures: Iterable[Picture],
    n: int,
    shape: Sequence[int],
    key: str | None,
    skipped: float = SKIPPED,
    workers: int | None = None,
) -> Decoded:
    """Decode pictures, or read what was decoded before.

    Args:
        pictures: in the order that they have; it is asked for a few at a time, so it may be a stream.
        n: how many there are, at most.
        shape: (channel, height, width) of each.
        key: changes when a picture changes, or how it is read; None keeps nothing, and decodes into memory.
        skipped: the largest share of them that may be left out.
        workers: threads that decode; by default one for each core.

    Raises:
        PrismaError: more than the share cannot be decoded: some are named; there is no picture, or no space for them.
    """
    folder = cache_folder()
    if folder is None or key is None:
        images = torch.empty(n, *shape, dtype=torch.uint8)
        labels, wrong = _expect_few(_fill(images, pictures, workers), skipped)
        return Decoded(images[: len(labels)], torch.tensor(labels, dtype=torch.int64), tuple(wrong))
    name = hashlib.sha256(f"{key} {list(shape)}".encode()).hexdigest()
    data, about = folder / "pictures" / f"{name}.bin", folder / "pictures" / f"{name}.json"
    if (kept := _stated(data, about, math.prod(shape))) is not None:
        return _of_file(data, shape, *_expect_few(kept, skipped))
    with sentences(data):
        data.parent.mkdir(parents=True, exist_ok=True)
        _expect_space(data.parent, n * math.prod(shape))
        partial = partial_of(data)
        try:
            images = torch.from_file(str(partial), shared=True, size=n * math.prod(shape), dtype=torch.uint8)
            labels, wrong = _expect_few(_fill(images.view(n, *shape), pictures, workers), skipped)
            os.truncate(partial, len(labels) * math.prod(shape))
            partial.replace(data)
        finally:
            remove(partial)
    write_json(about, {"labels": list(labels), "left_out": list(wrong)})
    return _of_file(data, shape, labels, wrong)


def _stated(data: Path, about: Path, size: int) -> _Kept | None:
    """(labels, names of what was left out) of a file of pictures of `size` bytes; None if it is not whole."""
    if not (data.is_file() and about.is_file()):
        return None
    try:
        stated = read_json(about, OWN_LIST)
        labels, left_out = (conform(name, stated.get(name), kind) for name, kind in _STATED.items())
    except PrismaError:  # damaged: it is written again
        return None
    return (labels, left_out) if data.stat().st_size == len(labels) * size else None


def _expect_space(folder: Path, size: int) -> None:
    """Raise PrismaError if a file of this size has no place: writing a mapped file without space ends the process."""
    if size > (free := shutil.disk_usage(folder).free):
        raise PrismaError(
            f"expected {size / 1e9:,.1f} GB of free space in {folder}; found {free / 1e9:,.1f} GB: choose another "
            "folder with PRISMA_CACHE, or a smaller size of pictures"
        )


def _of_file(data: Path, shape: Sequence[int], labels: Sequence[int], left_out: Sequence[str]) -> Decoded:
    n = len(labels)
    images = torch.from_file(str(data), shared=False, size=n * math.prod(shape), dtype=torch.uint8).view(n, *shape)
    return Decoded(images, torch.tensor(labels, dtype=torch.int64), tuple(left_out))


def _fill(images: Tensor, pictures: Iterable[Picture], workers: int | None) -> _Kept:
    """Write pictures into the first rows of a tensor: (their labels, the names of those that cannot be decoded)."""
    labels, wrong = list[int](), list[str]()
    for picture, found in _in_workers(pictures, workers or os.cpu_count() or 1):
        if isinstance(found, UnreadableError):
            wrong.append(picture.name)
        else:
            images[len(labels)] = found[0]
            labels.append(found[1])
    return labels, wrong


def _expect_few(found: _Kept, skipped: float) -> _Kept:
    """The same labels and names. Raises PrismaError if too many were left out; warns of a few."""
    labels, wrong = found
    there = len(labels) + len(wrong)
    if not labels or len(wrong) > skipped * there:
        raise PrismaError(
            f"expected at most {skipped:.1%} of {there:,} pictures to be unreadable; found {len(wrong):,}: "
            f"{listed(wrong, NAMED) or 'no picture'}"
        )
    if wrong:
        left_out = f"{len(wrong):,} of {there:,} pictures cannot be decoded and are left out"
        warn(f"{left_out}: {listed(wrong, NAMED)}")
    return found


def _in_workers(pictures: Iterable[Picture], workers: int) -> Iterator[tuple[Picture, _Found]]:
    """Each picture with its pixels or its error, in order; few are asked for ahead."""

    def read(picture: Picture) -> _Found:
        try:
            return picture.read()
        except UnreadableError as error:
            return error

    waiting = deque[tuple[Picture, "Future[_Found]"]]()
    with ThreadPoolExecutor(workers) as pool:
        for picture in pictures:
            waiting.append((picture, pool.submit(read, picture)))
            if len(waiting) >= workers * IN_FLIGHT:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def picture_of(data: bytes) -> "Image":
    """The picture of the bytes of a file. Raises UnreadableError if they are none."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width:,} x {picture.height:,} pixels")
        picture.load()
    except Exception as error:  # of any kind: the bytes decide what the parser does
        raise UnreadableError(f"expected the bytes of a picture; found {type(error).__name__}: {error}") from None
    return picture
