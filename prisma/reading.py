"""Reading files that others wrote: regular files only, of a bounded size, as UTF-8 and as JSON that means one thing."""

import json
import os
import re
import stat
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any

from prisma.bounds import DEPTH, DIGITS, JSON, VALUES
from prisma.errors import PrismaError, quoted, shown

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def open_file(path: Path | str, what: str = "a file") -> BufferedReader:
    """Open a file for reading. It never waits: a pipe or a device is refused before anything is read from it.

    Args:
        what: what the file should be, for the error message.

    Raises:
        PrismaError: there is no such file, it is no regular file, or it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        reason = "a link to a file that does not exist" if Path(path).is_symlink() else "no such file"
        raise PrismaError(f"expected {what} at {path}; found {reason}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise PrismaError(f"expected {what} at {path}; found a file that cannot be read: {reason}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = next((words for test, words in _KINDS if test(mode)), "something else")
        raise PrismaError(f"expected {what} at {path}; found {kind}")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path | str, largest: int = JSON) -> bytes:
    """The content of a file of at most `largest` bytes.

    Raises:
        PrismaError: as `open_file`, or the file is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = file.read(largest + 1) if size <= largest else b""
        except OSError as error:
            raise PrismaError(f"could not read {path}: {error.strerror}") from None
    if max(size, len(content)) > largest:
        raise PrismaError(f"expected a file of at most {largest:,} bytes at {path}; found {size:,}")
    return content


def read_text(path: Path | str, largest: int = JSON) -> str:
    """The text of a file in UTF-8; a byte order mark at its beginning is left out.

    Raises:
        PrismaError: as `read_bytes`, or the bytes are not UTF-8.
    """
    try:
        return read_bytes(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PrismaError(
            f"expected text in UTF-8 in {path}; found the byte 0x{error.object[error.start]:02x} at {error.start:,}"
        ) from None


def read_lines(path: Path | str, what: str) -> list[str]:
    """The lines of a text file that are not empty, without the spaces around them.

    Args:
        what: the lines are, for messages: "words".

    Raises:
        PrismaError: as `read_text`, or there are none.
    """
    found = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not found:
        raise PrismaError(f"expected {what} in {path}, one on each line; found none")
    return found


def parse_json(text: str, source: object) -> Any:
    """The value of a JSON text that means one thing.

    Args:
        source: what the text was read from, for the error message.

    Raises:
        PrismaError: not JSON; lists nested more than 64 deep, or millions of values; a name twice in one object; a
            number that is NaN, infinite or of more than 300 digits; or half of a character (a lone surrogate).
    """
    try:
        _expect_small(text)
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refused, parse_float=_number, parse_int=_whole
        )
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()  # raises UnicodeEncodeError for half of a character
        return value
    except UnicodeEncodeError:
        reason = "half of a character (a lone surrogate)"
    except (ValueError, RecursionError, MemoryError) as error:
        reason = f"something else ({shown(str(error) or type(error).__name__, 200)})"
    raise PrismaError(f"expected JSON in {source}; found {reason}")


def _expect_small(text: str) -> None:
    openings = text.count("[") + text.count("{")
    if openings + text.count(",") > VALUES:
        raise ValueError(f"more than {VALUES:,} values")
    if openings <= DEPTH:
        return
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > DEPTH:
            raise ValueError(f"lists and objects nested more than {DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {quoted(twice)} twice in one object")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"the number {constant}, which JSON does not have")


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {shown(text, 20)}, which is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a whole number of {len(text):,} digits")
    return int(text)
