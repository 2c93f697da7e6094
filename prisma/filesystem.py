"""What file systems cannot do, and what goes wrong with them, in one place.

A file system may lack locks, symbolic links, or a way to wait for the disk: where it is safe, work goes on with
something weaker, which is said once. Every other error becomes a sentence that names the file and what to do.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prisma.errors import PrismaError, quoted, warn

ON_WINDOWS = os.name == "nt"
PARTIAL = ".partial"
_MISSING = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})  # the file system cannot do it, whoever asks
_NO_SYNC = _MISSING | {errno.EINVAL}
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}  # also folders that may not be read
_NO_LINKS = _MISSING | {errno.EPERM, errno.EACCES, errno.EINVAL}
NO_LOCKS = _MISSING | {errno.ENOLCK}
_ADVICE: Mapping[int | None, str] = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may read and write",
    errno.EPERM: "choose a folder that you may read and write",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk, or choose another folder",
}
_said: set[str] = set()


def given(path: str | Path) -> Path:
    """A path as a person gave it, where it enters: `~` is the home folder, and it is a name that a file can have.

    Raises:
        PrismaError: `~USER` of nobody; a NUL character, or half of a character (a lone surrogate).
    """
    if not isinstance(path, str | Path):
        raise PrismaError(f"expected a path, as text or a Path; found {quoted(path)}")
    try:
        if "\0" in str(path):
            raise ValueError("it has a NUL character")
        os.fsencode(path)
        return Path(path).expanduser()
    except UnicodeEncodeError:
        reason = "it has half of a character (a lone surrogate)"
    except (ValueError, RuntimeError) as error:
        reason = "there is no such user" if isinstance(error, RuntimeError) else str(error)
    raise PrismaError(f"expected a path that a file can have; found {quoted(str(path))}: {reason}")


def partial_of(path: Path) -> Path:
    """A name beside `path` for what is not whole yet, which no other writer uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that it holds, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file there; across file systems, as a copy that appears whole."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = partial_of(target)
        try:
            if source.is_dir():
                shutil.copytree(source, near, symlinks=True)
            else:
                shutil.copyfile(source, near)
                sync(near)
            near.replace(target)
        finally:
            remove(near)
        remove(source)


def link_or_copy(link: Path, to: Path, target: Path) -> None:
    """Make a symbolic link whose text is `to`; on a file system without them, a copy of `target`."""
    try:
        link.symlink_to(to)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(target, link)
        sync(link)
        weaker("symbolic links", "files are copied instead, which takes more space")


def unwritable(path: Path, error: OSError) -> PrismaError:
    """The error of a failed write."""
    return PrismaError(f"could not write {path}: {_reason(error)}")


def sentence(error: OSError, path: Path | None = None) -> str:
    """What went wrong with a file, and what to do. `path`: where, if the error itself does not say."""
    where = error.filename if isinstance(error.filename, str | os.PathLike) else path
    return f"could not read or write {where or 'a file'}: {_reason(error)}"


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Every error of the file system in this block becomes a PrismaError, which names its file, or else `path`."""
    try:
        yield
    except OSError as error:
        raise PrismaError(sentence(error, path)) from error


def _reason(error: OSError) -> str:
    advice = _ADVICE.get(error.errno)
    return f"{error.strerror or error}{f'; {advice}' if advice else ''}"


def weaker(what: str, instead: str) -> None:
    """Say, once in a process, what the file system cannot do and what that means."""
    say_once(f"this file system has no {what}: {instead}")


def say_once(words: str) -> None:
    """Warn with this sentence, unless this process did already."""
    if words not in _said:
        _said.add(words)
        warn(words)


def sync_open(descriptor: int, is_folder: bool = False) -> None:
    """Wait until an open file, or the entries of a folder, are on the disk, if the file system can do that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        _expect_no_sync(error, is_folder)


def _expect_no_sync(error: OSError, is_folder: bool) -> None:
    if error.errno not in (_NO_FOLDER_SYNC if is_folder else _NO_SYNC):
        raise error
    what = "folders" if is_folder else "files"
    weaker(f"syncing of {what}", "after a loss of power, what was written last may be missing")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk, if the file system can do that."""
    is_folder = path.is_dir()
    if ON_WINDOWS and is_folder:
        return  # Windows cannot open folders, and writes their entries by itself
    try:
        descriptor = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)  # Windows syncs what is open for writing
    except OSError as error:
        _expect_no_sync(error, is_folder)
        return
    try:
        sync_open(descriptor, is_folder)
    finally:
        os.close(descriptor)
