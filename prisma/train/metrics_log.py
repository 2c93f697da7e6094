"""`metrics.jsonl`: one JSON object per line and step, in step order, appended as training goes."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from prisma.errors import PrismaError
from prisma.files import unwritable, write_atomic

METRICS = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines, in step order.

    Raises:
        PrismaError: no such file, or a line is not JSON.
    """
    if not path.is_file():
        raise PrismaError(f"expected the metrics of a run at {path}, found no such file")
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise PrismaError(f"expected a JSON object on every line of {path}, found something else ({error})") from None


class MetricsLog:
    """Opened at a step: the lines of earlier steps stay, a later or torn one (a killed run) goes.

    Every method raises PrismaError if the file cannot be written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        write_atomic(path, "".join(line for line in whole if json.loads(line)["step"] < step).encode())
        self._file = path.open("a", buffering=1)  # a line at a time

    def write(self, line: Mapping[str, Any]) -> None:
        with self._or_sentence():
            self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def sync(self) -> None:
        """What was written so far survives a loss of power."""
        with self._or_sentence():
            os.fsync(self._file.fileno())

    @contextmanager
    def _or_sentence(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self.path, error) from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with suppress(OSError):  # what could not be written was reported when it was
            self._file.close()
