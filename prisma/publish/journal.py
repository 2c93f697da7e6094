"""The journal of a publication: what was done, line by line, each on disk before the next step begins.

It serves three purposes: the Hub's limit of commits per hour holds across processes, a commit whose label was not made
is found again, and a person can see how far a stopped publication came. What is published is read from the Hub itself
and never from here.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from prisma.bounds import METRICS
from prisma.errors import PrismaError
from prisma.files import exclusive
from prisma.filesystem import sync_open, unwritable
from prisma.reading import parse_json, read_bytes

FOLDER = "publishing"
"""The folder of the journals in a run."""


@dataclass(frozen=True)
class Journal:
    """One file of JSON lines. `clock` is replaced in tests."""

    path: Path
    clock: Callable[[], float] = time.time
    _lock: Lock = field(default_factory=Lock, compare=False, repr=False)  # labels are made in threads

    @classmethod
    def of(cls, run: Path, repo: str) -> "Journal":
        """The journal of publishing a run to a repository of the Hub."""
        return cls(run / FOLDER / f"{repo.replace('/', '--')}.jsonl")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let only this process publish, as far as processes of this machine go."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        with exclusive(self.path.parent, f"publish as {self.path.stem}", f"{self.path.stem}.lock"):
            yield

    def write(self, event: str, **values: Any) -> None:
        """Append a line, and wait until it is on disk. Values are names and hashes, and never secrets."""
        line = json.dumps({"time": round(self.clock(), 3), "event": event, **values})
        try:
            with self._lock, self.path.open("ab") as file:
                if file.tell() and not self._ends_with_a_line():
                    file.write(b"\n")  # a killed process left part of a line
                file.write(line.encode() + b"\n")
                file.flush()
                sync_open(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def events(self) -> list[dict[str, Any]]:
        """All lines that are whole; what a kill left of a line is skipped."""
        if not self.path.is_file():
            return []
        found = []
        for i, line in enumerate(read_bytes(self.path, METRICS).split(b"\n")):
            try:
                values = parse_json(line.decode(), f"line {i + 1} of {self.path}")
            except (PrismaError, UnicodeDecodeError):
                continue
            if isinstance(values, dict):
                found.append(values)
        return found

    def commits(self) -> list[float]:
        """When the commits of the journal were made, in seconds."""
        times = (event.get("time") for event in self.events() if event.get("event") == "committed")
        return sorted(when for when in times if isinstance(when, int | float))

    def made(self) -> dict[str, str]:
        """What commits hold (`Commit.id`) -> the commit that was made of it last."""
        made = [event for event in self.events() if event.get("event") == "committed"]
        return {str(event.get("content")): str(event.get("commit")) for event in made}

    def _ends_with_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
