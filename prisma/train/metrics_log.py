"""Writing `metrics.jsonl`: a JSON object per line and step, in step order, appended while training runs."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from prisma.bounds import METRICS
from prisma.errors import PrismaError, quoted
from prisma.files import write_atomic
from prisma.filesystem import sync_open, unwritable
from prisma.ledger import expect_recorded
from prisma.reading import read_bytes
from prisma.run_folder import read_line


class MetricsLog:
    """The log of a run that starts or resumes at `step`: lines of earlier steps stay, later and torn ones are removed.

    Every method raises PrismaError if the file cannot be written.

    Args:
        recorded: the SHA-256 that the lines of earlier steps must have; None if it was not recorded.

    Raises:
        PrismaError: a line of an earlier step is missing, changed or not one of the log's.
    """

    def __init__(self, path: Path, step: int, recorded: str | None = None) -> None:
        self.path = path
        kept = _first_lines(path, step)
        self._hash = hashlib.sha256(kept)
        if recorded is not None:
            expect_recorded(f"{path.name} (its lines before step {step})", path.parent, recorded, self.sha256)
        write_atomic(path, kept)
        with self._as_prisma_error():
            self._file = path.open("a", buffering=1, newline="\n")  # buffering=1: a line at a time

    @property
    def sha256(self) -> str:
        """Hex digest of all lines so far."""
        return self._hash.hexdigest()

    def write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False) + "\n"
        with self._as_prisma_error():
            self._file.write(text)
        self._hash.update(text.encode())

    def sync(self) -> None:
        """Wait until what was written so far is on the disk."""
        with self._as_prisma_error():
            sync_open(self._file.fileno())

    @contextmanager
    def _as_prisma_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self.path, error) from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with suppress(OSError):  # a failed write was reported by `write`
            self._file.close()


def _first_lines(path: Path, step: int) -> bytes:
    """The lines of the steps before `step`. What follows them may be torn: a kill can leave anything there."""
    lines = read_bytes(path, METRICS).split(b"\n")[:-1] if path.is_file() else []
    for i, line in enumerate(lines[:step]):
        if (found := read_line(path, i, line).get("step")) != i:
            raise PrismaError(
                f"expected step {i} on line {i + 1} of {path}; found {quoted(found)}: restore the file, or "
                "train again in another folder"
            )
    if len(lines) < step:
        raise PrismaError(
            f"expected a line for every step from 0 to {step - 1} in {path}; found {len(lines)}: restore the file, or "
            "train again in another folder"
        )
    return b"".join(line + b"\n" for line in lines[:step])
