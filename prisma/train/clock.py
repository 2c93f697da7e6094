"""How long a run trains. Time differs between runs of the same weights, so it is in no file but `results.json`.

While a run trains, the sum so far is in `clock.json`, which is written with the state and removed at the end.
"""

import time
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError
from prisma.files import read_json, write_json
from prisma.filesystem import remove

CLOCK = "clock.json"


class Clock:
    """The seconds that a run has trained, on this and on earlier occasions: from `step` on it runs.

    Work that a kill lost and that was done again counts once, from the state that training continued from.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path, self._begun = out / CLOCK, time.monotonic()
        self._before = _recorded(self._path) if step else 0.0

    @property
    def stated(self) -> dict[str, float]:
        """{"seconds": ...} for `results.json`; empty if a part of the run was not timed, as by earlier versions."""
        return {} if self._before is None else {"seconds": round(self._before + time.monotonic() - self._begun, 1)}

    def save(self) -> None:
        """Keep the sum for a run that continues from here. Raises PrismaError if it cannot be written."""
        if stated := self.stated:
            write_json(self._path, stated)

    def remove(self) -> None:
        if self._path.is_file():
            remove(self._path)


def _recorded(path: Path) -> float | None:
    """The sum that was kept; None if none was, or if the file does not hold one."""
    try:
        seconds: Any = read_json(path).get("seconds")
    except PrismaError:
        return None
    return float(seconds) if type(seconds) in (int, float) and seconds >= 0 else None
