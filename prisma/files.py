"""Files that are whole or absent: nothing half-written survives an error or a kill."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
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


def read_json(path: Path) -> dict[str, Any]:
    """Raises PrismaError unless the file holds a JSON object."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise PrismaError(f"expected JSON in {path}, found something else ({error})") from None
    if not isinstance(values, dict):
        raise PrismaError(f"expected a JSON object in {path}, found {type(values).__name__}")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object, whole or not at all. Errors as in `write_atomic`."""
    write_atomic(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def exclusive(path: Path, work: str) -> Iterator[None]:
    """Be the only process in this block for this file or folder; a kill releases it.

    Raises:
        PrismaError: another process is in it; `work` says what it does.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PrismaError(f"expected to be the only one to {work}, found another process at it") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears whole under `path` when the block ends, and not at all if it fails.

    Raises:
        PrismaError: `path` holds something already, or could not be written.
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
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def expect_empty(path: Path) -> None:
    """Raise PrismaError unless `path` is absent or an empty folder."""
    if path.is_file():
        raise PrismaError(f"expected a new or empty folder at {path}, found a file")
    if path.is_dir() and (entries := [entry.name for entry in path.iterdir() if not _is_partial(entry.name)]):
        raise PrismaError(f"expected a new or empty folder at {path}, found {len(entries)} entries")


def _is_partial(name: str) -> bool:
    """What a kill may leave behind."""
    return name.startswith(".") and name.endswith(".partial")


def unwritable(path: Path, error: OSError) -> PrismaError:
    """The sentence for a failed write."""
    return PrismaError(f"could not write {path}: {error.strerror or error}")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
