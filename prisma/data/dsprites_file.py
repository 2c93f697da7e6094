"""Reading the original dSprites file: its images and classes, checked. Its metadata are a pickle and stay closed."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from prisma.errors import PrismaError, quoted
from prisma.filesystem import given
from prisma.reading import open_file

IMAGES, CLASSES = "imgs.npy", "latents_classes.npy"


def read_dsprites(
    path: str | Path, counts: Sequence[int], sides: tuple[int, int], some: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The images of the original, in their order: (the number of the first, uint8 [some, height, width] of 0 and 1).

    Args:
        counts: how many values each factor has, for shape, scale, orientation, x and y.

    Raises:
        PrismaError: there is no such file, it is cut off or damaged, or it holds other arrays than the original.
    """
    path, n = given(path), int(np.prod(counts))
    with open_file(path, "the dSprites archive") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                with archive.open(CLASSES) as classes:
                    _expect_header(classes, CLASSES, (n, 1 + len(counts)), np.dtype("<i8"), path)
                    size = 8 * n * (1 + len(counts))
                    _expect_classes(classes.read(size + 1), size, counts, path)
                with archive.open(IMAGES) as images:
                    _expect_header(images, IMAGES, (n, *sides), np.dtype("u1"), path)
                    for start in range(0, n, some):
                        yield start, _pixels(images, min(some, n - start), sides, path)
                    images.read(1)  # at the end, the checksum is compared
        except KeyError as error:
            raise PrismaError(f"expected the arrays of dSprites in {path}; found an archive without {error}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
            raise PrismaError(
                f"expected the dSprites archive (.npz) at {path}; found a damaged or other file: {error}"
            ) from None


def _expect_header(file: IO[bytes], name: str, shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> None:
    """Raise PrismaError unless the array has this shape and type; before its values are read."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found, by_column, kind = read(file)
    if (found, by_column, kind) != (shape, False, dtype):
        raise PrismaError(
            f"expected {name} in {path} to be {dtype} {list(shape)}; found {quoted(str(kind))} {quoted(list(found))}"
        )


def _expect_classes(data: bytes, size: int, counts: Sequence[int], path: Path) -> None:
    """Raise PrismaError unless the classes are those of the whole grid, of one colour, the last factor fastest."""
    grid = np.stack(np.unravel_index(np.arange(int(np.prod(counts))), (1, *counts)), 1)
    if len(data) != size or (np.frombuffer(data, "<i8").reshape(grid.shape) != grid).any():
        raise PrismaError(f"expected {CLASSES} in {path} to count through the grid of factors; found other classes")


def _pixels(file: IO[bytes], n: int, sides: tuple[int, int], path: Path) -> np.ndarray:
    size = n * sides[0] * sides[1]
    data = file.read(size)
    pixels = np.frombuffer(bytearray(data), np.uint8)
    if len(pixels) != size:
        raise PrismaError(f"expected {IMAGES} in {path} to hold all its images; found that its end is missing")
    if pixels.max() > 1:
        raise PrismaError(f"expected {IMAGES} in {path} to be 0 and 1; found {pixels.max()}")
    return pixels.reshape(n, *sides)
