"""Writing `metrics.jsonl`: a JSON object per line and step, in step order, appended while training runs."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from prisma.files import unwritable, write_atomic


class MetricsLog:
    """The log of a run that starts or resumes at `step`: lines of earlier steps stay, later and torn ones are removed.

    Every method raises PrismaError if the file cannot be written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        write_atomic(path, "".join(line for line in whole if json.loads(line)["step"] < step).encode())
        self._file = path.open("a", buffering=1, newline="\n")  # buffering=1: a line at a time

    def write(self, line: Mapping[str, Any]) -> None:
        with self._as_prisma_error():
            self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Wait until what was written so far is on the disk."""
        with self._as_prisma_error():
            os.fsync(self._file.fileno())

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
