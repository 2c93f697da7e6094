"""Files that are either complete or absent: an error or a kill leaves nothing half-written."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prisma.bounds import JSON
from prisma.errors import PrismaError
from prisma.reading import open_file, parse_json, read_text

LOCK = ".lock"
_ON_WINDOWS = os.name == "nt"


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes. Raises PrismaError if there is no such file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old file or the new one.

    Raises:
        PrismaError: the bytes could not be written (disk full, no permission); the old file, if any, is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise unwritable(path, error) from error


def read_json(path: Path, largest: int = JSON) -> dict[str, Any]:
    """The JSON object of a file of at most `largest` bytes.

    Raises:
        PrismaError: no such file, or it does not hold such an object; `reading.parse_json` lists what is refused.
    """
    values = parse_json(read_text(path, largest), path)
    if not isinstance(values, dict):
        raise PrismaError(f"expected a JSON object in {path}; found {type(values).__name__}")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object as `write_atomic` does, with the same errors."""
    write_atomic(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def exclusive(path: Path, work: str) -> Iterator[None]:
    """Let only one process at a time run this block for a folder, or for a lock file. A kill frees it.

    Args:
        path: a folder, which holds a lock file as long as the block runs; or a lock file, which stays.
        work: what the block does, for the error message.

    Raises:
        PrismaError: another process is in the block.
    """
    from filelock import FileLock, Timeout

    file = path / LOCK if path.is_dir() else path
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise PrismaError(
            f"expected to be the only process to {work}; found another one: wait until it has ended"
        ) from None
    try:
        yield
    finally:
        if file != path:
            with suppress(OSError):  # Windows removes it on release, and not before
                file.unlink()  # while it is locked, so that nobody can lock a file that is about to go
        lock.release()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path`, complete, when the block ends; or not at all, if the block fails.

    Raises:
        PrismaError: `path` is a file or a folder with entries, or it could not be written.
    """
    expect_empty(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left behind by a kill
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file() and not file.is_symlink():
                sync(file)
        sync(partial)
        if _ON_WINDOWS and path.is_dir():
            path.rmdir()  # elsewhere an empty folder is replaced
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def expect_empty(path: Path) -> None:
    """Raise PrismaError unless `path` is absent or an empty folder."""
    if path.is_file():
        raise PrismaError(f"expected a new or empty folder at {path}; found a file")
    if path.is_dir() and (entries := [entry.name for entry in path.iterdir() if not _is_leftover(entry.name)]):
        raise PrismaError(f"expected a new or empty folder at {path}; found {len(entries)} entries")


def _is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed process leaves behind."""
    return name == LOCK or (name.startswith(".") and name.endswith(".partial"))


def unwritable(path: Path, error: OSError) -> PrismaError:
    """The error of a failed write."""
    return PrismaError(f"could not write {path}: {error.strerror or error}")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if _ON_WINDOWS and path.is_dir():
        return  # Windows cannot open folders, and writes their entries by itself
    descriptor = os.open(path, os.O_RDWR if _ON_WINDOWS else os.O_RDONLY)  # Windows syncs what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
