"""Sets of labelled pictures on disk: any folder with a subfolder for each class, ImageNet-1k, TinyImageNet.

A set is listed first: its classes, and each picture's file and label. Its pictures are decoded once, on first use, to
the size of the task (`prisma.data.decoding`). Where a set has no test pictures of its own, a tenth of each class is
drawn for testing, always the same.
"""

import csv
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from prisma.data.decoding import SKIPPED, Picture, UnreadableError, decoded
from prisma.data.picture_files import picture_files
from prisma.data.task import SEED, Split, Task
from prisma.data.transform import Transform, as_bytes
from prisma.errors import PrismaError, listed, nearest, printable
from prisma.filesystem import given
from prisma.reading import read_text

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet-1k, as everybody takes them
TRAIN, TEST = ("train", "training"), ("val", "validation", "valid", "test", "testing")
TEST_SHARE = 0.1
TABLE = 2**28  # bytes of a list of annotations
Rows = Sequence[tuple[Path, int]]  # (file, label)


@dataclass(frozen=True)
class Listing:
    """A set of pictures, before one is opened."""

    root: Path
    classes: tuple[str, ...]
    train: Rows
    test: Rows

    @property
    def key(self) -> str:
        """A hash of names, sizes and times of all files, and labels: to read every byte takes too long.

        The place and the time of the last change of the file's entry count too: archives give files any other time.
        """
        digest = hashlib.sha256(os.fsencode(self.root.resolve()))
        for rows in (self.train, self.test):
            for path, label in rows:
                stat = path.stat()
                name = (
                    f"{path.relative_to(self.root)}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n"
                )
                digest.update(name.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def picture_set(
    path: str | Path,
    size: int = 64,
    *,
    layout: str = "folder",
    name: str | None = None,
    skipped: float = SKIPPED,
) -> Task:
    """A set of pictures on disk as a task of `size` x `size` pixels, in colour.

    Args:
        path: its folder.
        layout: "folder" (a subfolder for each class, perhaps below train/ and val/ or test/), "imagenet" (that, or as
            Kaggle packs it), or "tinyimagenet".
        name: of the task; by default that of the folder.
        skipped: the largest share of pictures that may fail to decode. Those that do are left out.

    Raises:
        PrismaError: another layout is on disk; too many pictures cannot be decoded (some are named).
    """
    if layout not in LAYOUTS:
        raise PrismaError(f"there is no layout {layout!r} of pictures; the nearest: {nearest(layout, LAYOUTS)}")
    found = LAYOUTS[layout](given(path))
    edge = size if layout != "imagenet" else round(size * 256 / 224)
    transform = Transform(size=(size, size), mean=MEAN, std=STD, shortest=edge)
    key = found.key
    splits = {
        split: _split(rows, found.root, transform, f"{key} {split} {edge}", skipped)
        for split, rows in (("train", found.train), ("test", found.test))
    }
    title = name or printable(found.root.name)
    return Task.of_splits(
        title,
        splits["train"],
        splits["test"],
        labels=found.classes,
        transform=transform,
        summary=f"Which of {len(found.classes):,} classes? {len(found.train) + len(found.test):,} pictures of {title}.",
        source=f"pictures of {title}, on this machine",
    )


def _split(rows: Rows, root: Path, transform: Transform, key: str, skipped: float) -> Split:
    plain = transform.plain
    pictures = (
        Picture(printable(str(path.relative_to(root))), partial(_read, plain, path, label)) for path, label in rows
    )
    found = decoded(pictures, len(rows), (3, *transform.size), key, skipped)
    return Split(found.images, found.labels)


def _read(plain: Transform, path: Path, label: int) -> tuple[Tensor, int]:
    try:
        return as_bytes(plain(path)), label
    except PrismaError as error:
        raise UnreadableError(error) from None


def _folder(root: Path) -> Listing:
    """A subfolder for each class, of train/ and val/ or test/ if they are there."""
    train, test = (next((root / name for name in names if (root / name).is_dir()), None) for names in (TRAIN, TEST))
    if (train is None) != (test is None):
        missing = "train/" if train is None else "val/ or test/"
        there = (train or test or root).name
        raise PrismaError(f"expected {missing} beside {there}/ in {root}; found none")
    if train is None or test is None:
        classes, rows = _classes(root)
        return Listing(root, classes, *_drawn(rows, len(classes)))
    classes, rows = _classes(train)
    others, test_rows = _classes(test)
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise PrismaError(f"expected the same classes in {train} and {test.name}/; found {listed(odd)} in one of them")
    return Listing(root, classes, rows, test_rows)


def _classes(folder: Path) -> tuple[tuple[str, ...], Rows]:
    """(the subfolders that have pictures, sorted by name; each picture with the number of its subfolder)."""
    files = [path for path in picture_files(folder).files if path.parent != folder]
    names = sorted({path.relative_to(folder).parts[0] for path in files})
    if len(names) < 2:
        raise PrismaError(
            f"expected a subfolder of pictures for each of two classes or more in {folder}; found {len(names)}"
        )
    numbers = {name: i for i, name in enumerate(names)}
    rows = [(path, numbers[path.relative_to(folder).parts[0]]) for path in files]
    return tuple(printable(name) for name in names), rows


def drawn_for_testing(labels: np.ndarray, n_classes: int, share: float = TEST_SHARE) -> np.ndarray:
    """Which images are for testing, bool [n]: a share of each class, at least one of a class with two, at random."""
    random, chosen = np.random.RandomState(SEED), np.zeros(len(labels), dtype=bool)
    for label in range(n_classes):
        rows = np.flatnonzero(labels == label)
        some = min(max(round(len(rows) * share), 1), len(rows) - 1) if len(rows) else 0
        chosen[random.permutation(rows)[:some]] = True
    return chosen


def _drawn(rows: Rows, n_classes: int) -> tuple[Rows, Rows]:
    chosen = drawn_for_testing(np.array([label for _, label in rows]), n_classes)
    parts = ([row for row, is_test in zip(rows, chosen, strict=True) if is_test == which] for which in (False, True))
    train, test = parts
    return train, test


def _imagenet(root: Path) -> Listing:
    """train/ and val/ with a subfolder for each class; or as Kaggle packs it, with one list for all of val/."""
    table, inside = root / "LOC_val_solution.csv", root / "ILSVRC" / "Data" / "CLS-LOC"
    if not table.is_file():
        return _named(_folder(root), root / "LOC_synset_mapping.txt", " ")
    classes, rows = _classes(inside / "train")
    stated = {line[0]: line[1].split(" ")[0] for line in csv.reader(read_text(table, TABLE).splitlines()[1:]) if line}
    return _named(
        Listing(root, classes, rows, _annotated(inside / "val", stated, classes)), root / "LOC_synset_mapping.txt", " "
    )


def _tiny_imagenet(root: Path) -> Listing:
    """train/CLASS/images, and val/images with one list for all of it. The pictures of test/ have no labels."""
    classes, rows = _classes(root / "train")
    lines = [line.split("\t") for line in read_text(root / "val" / "val_annotations.txt", TABLE).splitlines()]
    stated = {line[0]: line[1] for line in lines if len(line) > 1}
    return _named(
        Listing(root, classes, rows, _annotated(root / "val" / "images", stated, classes)), root / "words.txt", "\t"
    )


def _annotated(folder: Path, stated: Mapping[str, str], classes: Sequence[str]) -> Rows:
    """The pictures of a folder, with the labels that a list states for their names (with or without the ending)."""
    numbers, rows = {name: i for i, name in enumerate(classes)}, []
    for path in picture_files(folder).files:
        found = stated.get(path.name, stated.get(path.stem))
        if found not in numbers:
            raise PrismaError(
                f"expected the class of {path} in its list, one of the training pictures'; found {found!r}"
            )
        rows.append((path, numbers[found]))
    return rows


def _named(found: Listing, words: Path, between: str) -> Listing:
    """The same set with the names that a list gives to its classes, where there is one and they all differ."""
    if not words.is_file():
        return found
    lines = (line.partition(between) for line in read_text(words, TABLE).splitlines())
    names = {key: printable(value.strip(), 100) for key, _, value in lines}
    named = tuple(names.get(key) or key for key in found.classes)
    return Listing(found.root, named if len(set(named)) == len(named) else found.classes, found.train, found.test)


LAYOUTS: Mapping[str, Callable[[Path], Listing]] = {
    "folder": _folder,
    "imagenet": _imagenet,
    "tinyimagenet": _tiny_imagenet,
}
