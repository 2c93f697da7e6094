"""Files that are either complete or absent: an error or a kill leaves nothing half-written."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prisma.bounds import JSON
from prisma.errors import PrismaError, printable
from prisma.filesystem import NO_LOCKS, ON_WINDOWS, PARTIAL, partial_of, remove, sync, sync_open, unwritable, weaker
from prisma.reading import open_file, parse_json, read_text

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"
CLUTTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that a file manager makes in a folder that somebody looked at."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes. Raises PrismaError if there is no such file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old file or the new one.

    Of several writers at once, one wins: nobody ever sees a mixture.

    Raises:
        PrismaError: the bytes could not be written (disk full, no permission); the old file, if any, is untouched.
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            sync_open(file.fileno())
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
    write_atomic(path, to_json(values))


def to_json(values: Mapping[str, Any]) -> bytes:
    """The bytes that `write_json` writes.

    Halves of characters, as in names that are not UTF-8, become what messages show, because no reader takes such JSON.
    """
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    if re.search("[\ud800-\udfff]", text):
        text = re.sub("[\ud800-\udfff]", lambda half: json.dumps(printable(half[0]))[1:-1], text)
    else:
        text = json.dumps(values, indent=2, allow_nan=False)
    return f"{text}\n".encode()


@contextmanager
def exclusive(folder: Path, work: str, name: str = LOCK) -> Iterator[Callable[[], None]]:
    """Let only one process at a time run this block for a folder, by a lock file in it. A kill frees it.

    On a file system without locks, a marker file that names its process takes the place of the lock.

    Args:
        work: what the block does, for the error message.
        name: of the lock file. `LOCK` is removed when the block ends; any other stays.

    Yields:
        A function to call before each write: it raises PrismaError if the lock file is gone or another's, because
        somebody removed or replaced the folder, which another process may use now.

    Raises:
        PrismaError: another process is in the block, or the lock file cannot be written.
    """
    from filelock import SoftFileLock

    file = folder / name
    lock = _locked(file, work)
    mine = _identity(file)

    def expect_alone() -> None:
        if mine is None or _identity(file) != mine:
            raise PrismaError(
                f"expected to be the only process to {work}; found that {file} was removed or replaced meanwhile: "
                "nothing more is written there"
            )

    try:
        expect_alone()
        yield expect_alone
    finally:
        if name == LOCK and not isinstance(lock, SoftFileLock) and mine is not None and _identity(file) == mine:
            with suppress(OSError):  # Windows removes it on release, and not before
                file.unlink()  # while it is locked, so that nobody can lock a file that is about to go
        lock.release()


def _locked(file: Path, work: str) -> "BaseFileLock":
    """A lock that this process has. Raises PrismaError as `exclusive` does."""
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

    lock: BaseFileLock = FileLock(file, fallback_to_soft=False)
    advice = "wait until it has ended"
    try:
        try:
            lock.acquire(blocking=False)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
                raise
            weaker("locks", "a file marks a folder as in use, and may have to be removed by hand after a crash")
            with suppress(OSError):
                if file.stat().st_size == 0:  # left by the failed attempt; a marker is not empty
                    file.unlink()
            lock, advice = SoftFileLock(file), f"wait until it has ended, or remove {file} if there is none"
            lock.acquire(blocking=False)
    except Timeout:
        raise PrismaError(f"expected to be the only process to {work}; found another one: {advice}") from None
    except OSError as error:
        raise unwritable(file, error) from error
    return lock


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file it is, whatever is written into it; None if there is none."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


@contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """A folder that exists in this block. Afterwards, what was made for it and stayed empty is removed.

    Raises:
        PrismaError: it could not be made.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that is not empty stays
            for folder in made:
                folder.rmdir()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path`, complete, when the block ends; or not at all, if the block fails.

    Raises:
        PrismaError: `path` is a file or a folder with entries, or it could not be written.
    """
    expect_empty(path)
    partial = partial_of(path)
    try:
        _clear_leftovers(path)
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file() and not file.is_symlink():
                sync(file)
        sync(partial)
        for name in CLUTTER:
            (path / name).unlink(missing_ok=True)
        if ON_WINDOWS and path.is_dir():
            path.rmdir()  # elsewhere an empty folder is replaced
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def expect_writable(path: Path) -> None:
    """Raise PrismaError unless files can be written into a folder at `path`, which need not be there yet.

    A folder that is there stays as it is. Where the first one is missing, one is made, of a name that nobody has, and
    removed again: permissions alone do not say it, since a superuser has them where nothing can be written.
    """
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise PrismaError(f"expected a folder at {there}; found a {'file' if there.exists() else 'link to nothing'}")
    missing = path.absolute().relative_to(there).parts
    try:
        for name in missing:
            with suppress(FileNotFoundError):
                os.lstat(there / name)  # a name that is too long is refused here
        if missing:
            probe = partial_of(there / "folder")
            probe.mkdir()
            probe.rmdir()
        elif not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise unwritable(path, error) from error


def expect_empty(path: Path, ignored: str = LOCK) -> None:
    """Raise PrismaError unless `path` is absent or an empty folder. What a file manager or a kill leaves is nothing.

    Args:
        ignored: the name of one more entry that is nothing.
    """
    if path.is_file():
        raise PrismaError(f"expected a new or empty folder at {path}; found a file")
    if path.is_dir() and (
        entries := [entry.name for entry in path.iterdir() if entry.name != ignored and not _is_nothing(entry.name)]
    ):
        raise PrismaError(f"expected a new or empty folder at {path}; found {len(entries)} entries")


def _is_nothing(name: str) -> bool:
    """Whether a file of this name is what a killed process leaves behind, or clutter."""
    return name == LOCK or name in CLUTTER or (name.startswith(".") and name.endswith(PARTIAL))


def _clear_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left behind: those whose process is gone."""
    form = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-[0-9a-f]+{re.escape(PARTIAL)}")
    for entry in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        if (match := form.fullmatch(entry.name)) and not _is_running(int(match[1])):
            remove(entry)


def _is_running(process: int) -> bool:
    if ON_WINDOWS:
        return True  # where asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def clear_leftovers_in(folder: Path) -> None:
    """Remove what killed writers left anywhere in a folder. Only for the process that has the folder for itself."""
    for path in list(folder.rglob(f".*{PARTIAL}")):
        remove(path)
