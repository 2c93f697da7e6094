"""MNIST: handwritten digits, from the four files of the set (idx, perhaps gzipped), which are in a folder.

LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist. Fashion-MNIST, KMNIST and others come in the same files.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from prisma.data.task import Split, Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.filesystem import given
from prisma.reading import read_bytes

LARGEST = 2**30  # bytes of a file, and of what it unpacks to
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SIDE, DIGITS = 28, 10
TRANSFORM = Transform(size=(SIDE, SIDE), mean=(0.1307,), std=(0.3081,))
LABELS = tuple(str(digit) for digit in range(DIGITS))
SUMMARY = "Which digit is it? Handwritten digits of 28x28 pixels."
SOURCE = "MNIST (LeCun, Cortes and Burges), read from its files"


def mnist(path: str | Path) -> Task:
    """MNIST from a folder with its four files.

    Raises:
        PrismaError: a file is missing, damaged, or of another set: the sentence names it.
    """
    folder = given(path)
    train, test = (_split(folder, *names) for names in FILES.values())
    return Task.of_splits("mnist", train, test, labels=LABELS, transform=TRANSFORM, summary=SUMMARY, source=SOURCE)


def _split(folder: Path, images: str, labels: str) -> Split:
    pixels, numbers = read_idx(_file(folder, images), 3), read_idx(_file(folder, labels), 1)
    if pixels.shape[1:] != (SIDE, SIDE) or len(pixels) != len(numbers) or not len(numbers):
        raise PrismaError(
            f"expected as many images of {SIDE}x{SIDE} as labels in {folder}; found {list(pixels.shape)} in {images} "
            f"and {len(numbers):,} labels"
        )
    if numbers.max() >= DIGITS:
        raise PrismaError(f"expected labels 0 to {DIGITS - 1} in {folder / labels}; found {numbers.max()}")
    return Split(torch.from_numpy(pixels)[:, None], torch.from_numpy(numbers.astype(np.int64)))


def _file(folder: Path, name: str) -> Path:
    """The file, or the gzipped one; some copies have a dot in the place of a dash."""
    names = [form + end for end in ("", ".gz") for form in (name, name.replace("-idx", ".idx"))]
    found = next((folder / one for one in names if (folder / one).is_file()), None)
    if found is None:
        raise PrismaError(f"expected the file {name} or {name}.gz in {folder}; found none")
    return found


def read_idx(path: Path, axes: int) -> np.ndarray:
    """An idx file of bytes with so many axes, gzipped or not.

    Raises:
        PrismaError: the file is something else, cut off, or too large.
    """
    data = _unpacked(path, read_bytes(path, LARGEST))
    start = 4 + 4 * axes
    if data[:4] != bytes((0, 0, 8, axes)) or len(data) < start:
        raise PrismaError(f"expected an idx file of bytes with {axes} axes at {path}; found something else")
    shape = [int(n) for n in np.frombuffer(data, ">u4", axes, 4)]
    if len(data) - start != math.prod(shape):
        raise PrismaError(
            f"expected {math.prod(shape):,} bytes after the header in {path}, which states {shape}; found "
            f"{len(data) - start:,}"
        )
    return np.frombuffer(bytearray(data), np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path, data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(path) as file:
            unpacked = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PrismaError(f"expected a gzipped file at {path}; found a damaged one: {error}") from None
    if len(unpacked) > LARGEST:
        raise PrismaError(f"expected a file that unpacks to at most {LARGEST:,} bytes at {path}; found more")
    return unpacked
