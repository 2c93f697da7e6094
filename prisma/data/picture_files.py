"""Finding the pictures in a folder and the folders below it, and saying what else is there.

Folders and files that are symbolic links are followed, each folder once, so that a link that leads back ends nowhere.
A file is a picture by its ending or, where that is missing or is that of no picture, by its first bytes.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prisma.bounds import PICTURE_FILES
from prisma.errors import PrismaError
from prisma.reading import open_file

NOT_DECODED = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}  # PIL knows them and needs other programs
BY_CONTENT = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats whose first bytes leave no doubt."""
HIDDEN = "hidden"
OTHER = "not pictures"
TWICE = "links to a folder that is read already"
LOST = "links to nothing"
SPECIAL = "pipes, sockets or devices"
CLOSED = "folders that may not be read"


@dataclass(frozen=True)
class PictureFiles:
    """The pictures of a folder, and how many other entries it has."""

    files: tuple[Path, ...]  # sorted by path
    skipped: Mapping[str, int]  # reason -> number of files and folders

    @property
    def left_out(self) -> str:
        """What was left out and why, in words: "2 hidden, 1 not pictures"; empty if nothing was."""
        return ", ".join(f"{n:,} {reason}" for reason, n in self.skipped.items())


def picture_files(folder: Path) -> PictureFiles:
    """All pictures of a folder and the folders below it.

    Raises:
        PrismaError: more than ten million files, or a folder that cannot be read.
    """
    skipped, files = Counter[str](), list[Path]()
    endings = _endings()
    for path in _files(folder, skipped):
        if path.suffix.lower() in endings or _is_picture(path):
            files.append(path)
        else:
            skipped[OTHER] += 1
        if len(files) + skipped.total() > PICTURE_FILES:
            raise PrismaError(f"expected at most {PICTURE_FILES:,} files in {folder}; found more")
    return PictureFiles(tuple(sorted(files)), dict(sorted(skipped.items())))


def _files(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """All regular files that are not hidden. Real folders come before linked ones, so they keep their own names."""
    folders, links, seen = [folder], list[Path](), set[tuple[int, int]]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        if not _is_new(here, seen):
            skipped[TWICE] += 1
            continue
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if here == folder:
                raise PrismaError(f"expected a folder of pictures at {folder}; found: {error.strerror}") from None
            skipped[CLOSED] += 1
            continue
        for entry in entries:
            if entry.name.startswith("."):
                skipped[HIDDEN] += 1
            elif _is(entry.is_dir):
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif _is(entry.is_file):
                yield Path(entry.path)
            else:
                skipped[LOST if entry.is_symlink() and not Path(entry.path).exists() else SPECIAL] += 1


def _is(question: Callable[[], bool]) -> bool:
    """The answer of `DirEntry.is_dir` or `is_file`; no for a link that leads in a circle."""
    try:
        return question()
    except OSError:
        return False


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was not read before; yes for one that cannot be looked at, which reading it will say."""
    try:
        found = folder.stat()
    except OSError:
        return True
    key = (found.st_dev, found.st_ino)
    is_new = key not in seen
    seen.add(key)
    return is_new


def _endings() -> set[str]:
    """The endings of formats that PIL decodes by itself."""
    from PIL import Image

    Image.init()
    kinds = set(Image.OPEN) - NOT_DECODED
    return {ending for ending, kind in Image.registered_extensions().items() if kind in kinds}


def _is_picture(path: Path) -> bool:
    """Whether a file begins like a picture of a common format."""
    from PIL import Image

    formats = [name for name in BY_CONTENT if name in Image.OPEN]
    try:
        with open_file(path) as file, Image.open(file, formats=formats):
            return True
    except Exception:  # of any kind: the bytes of a file decide what the parser does
        return False
