"""CIFAR-10 and CIFAR-100: small photographs, from the binary version of the sets, in a folder or in its archive.

Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html. Its Python version is a pickle, which can run any code of
whoever wrote it; the binary version holds the same images, so the pickle is never opened.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch

from prisma.data.task import Split, Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError, printable
from prisma.filesystem import given
from prisma.reading import open_file, read_bytes

SIDE = 32
LARGEST = 2**29  # bytes of a file


@dataclass(frozen=True)
class Kind:
    """One of the two sets, and how its files are made."""

    name: str
    train: Sequence[str]
    test: Sequence[str]
    names: str  # of the file with the names of the classes, a line each
    classes: int
    labels: int  # bytes before the pixels, of which the last is the label
    mean: tuple[float, ...]
    std: tuple[float, ...]
    python: str  # a file of the version that is a pickle

    @property
    def transform(self) -> Transform:
        """From a picture to the input."""
        return Transform(size=(SIDE, SIDE), mean=self.mean, std=self.std)


KINDS = {
    10: Kind(
        "cifar10",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
        "batches.meta.txt",
        10,
        1,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "data_batch_1",
    ),
    100: Kind(
        "cifar100",
        ("train.bin",),
        ("test.bin",),
        "fine_label_names.txt",
        100,
        2,  # of 20 coarse classes, then of 100
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        "train",
    ),
}


def cifar(path: str | Path, classes: int = 10) -> Task:
    """CIFAR-10 or CIFAR-100 from the folder of its binary version, or from that archive (.tar.gz).

    Raises:
        PrismaError: another number of classes; a file is missing, damaged or of another set; only the Python version is
            there, which is not opened.
    """
    if classes not in KINDS:
        raise PrismaError(f"expected the 10 or the 100 classes of CIFAR; found {classes!r}")
    kind, where = KINDS[classes], given(path)
    files = _archive(where, kind) if where.is_file() else _folder(where, kind)
    train, test = (_split(kind, files, names, where) for names in (kind.train, kind.test))
    labels = _labels(kind, files, where)
    return Task.of_splits(
        kind.name,
        train,
        test,
        labels=labels,
        transform=kind.transform,
        summary=f"Which of {classes} classes? {len(train.labels) + len(test.labels):,} photographs of 32x32 pixels.",
        source=f"CIFAR-{classes} (Krizhevsky 2009), read from its binary version",
    )


def _folder(folder: Path, kind: Kind) -> dict[str, bytes]:
    names = (*kind.train, *kind.test, kind.names)
    if not (folder / kind.train[0]).is_file() and (folder / kind.python).is_file():
        raise PrismaError(
            f"expected the binary version of {kind.name} in {folder}; found the Python version, a pickle, which "
            "could run any code: download the binary version"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise PrismaError(f"expected the file {missing[0]} of {kind.name} in {folder}; found none")
    return {name: read_bytes(folder / name, LARGEST) for name in names}


def _archive(path: Path, kind: Kind) -> dict[str, bytes]:
    """The files of an archive, read in place: nothing is unpacked onto the disk."""
    wanted, found = {*kind.train, *kind.test, kind.names}, dict[str, bytes]()
    try:
        with (
            open_file(path) as file,
            _unpacking(file) as tar,
            tarfile.open(fileobj=_Bounded(tar), mode="r:") as archive,
        ):
            for member in archive:
                name = Path(member.name).name
                if name in wanted and member.isfile() and member.size <= LARGEST:
                    inside = archive.extractfile(member)
                    found[name] = inside.read() if inside else b""
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise PrismaError(f"expected the archive of {kind.name} at {path}; found a damaged file: {error}") from None
    if missing := sorted(wanted - found.keys()):
        raise PrismaError(f"expected {missing[0]} in the archive {path}, of the binary version; found none")
    return found


def _unpacking(file: BinaryIO) -> BinaryIO:
    """The file, or what it unpacks to if it is gzipped."""
    is_gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast("BinaryIO", gzip.open(file)) if is_gzipped else file


class _Bounded(io.RawIOBase):
    """A file of which a part has a largest size: a header in an archive may state any, and be read as a whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST:
            raise tarfile.ReadError(f"a part of {size:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _split(kind: Kind, files: dict[str, bytes], names: Sequence[str], where: Path) -> Split:
    size, rows = kind.labels + 3 * SIDE**2, []
    for name in names:
        if not files[name] or len(files[name]) % size:
            raise PrismaError(f"expected rows of {size:,} bytes in {name} of {where}; found {len(files[name]):,} bytes")
        rows.append(np.frombuffer(files[name], np.uint8).reshape(-1, size))
    data = np.concatenate(rows)
    labels = data[:, kind.labels - 1].astype(np.int64)
    if labels.max() >= kind.classes:
        raise PrismaError(f"expected labels 0 to {kind.classes - 1} in {names[0]} of {where}; found {labels.max()}")
    images = np.ascontiguousarray(data[:, kind.labels :]).reshape(-1, 3, SIDE, SIDE)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _labels(kind: Kind, files: dict[str, bytes], where: Path) -> tuple[str, ...]:
    lines = io.StringIO(files[kind.names].decode("utf-8", "replace")).read().split("\n")
    names = tuple(printable(line.strip(), 100) for line in lines if line.strip())
    if len(set(names)) != kind.classes or len(names) != kind.classes:
        raise PrismaError(f"expected {kind.classes} names in {kind.names} of {where}; found {len(set(names))}")
    return names
