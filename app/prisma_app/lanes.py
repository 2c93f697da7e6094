"""How many computations run at once, and how many may wait: whoever asks, and by whichever way the question came.

A light computation is one forward pass or a few; a heavy one is many, as patching every head is. Each lane has its own
places, so that a visitor who looks at attention does not wait for another's patching.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from prisma.errors import PrismaError


class BusyError(PrismaError):
    """Too many computations wait already, or this one waited or ran too long."""


class Lane:
    """Places for computations of one kind.

    Args:
        at_once: how many run at the same time.
        waiting: how many may wait for a place.
        seconds: how long one may wait, and then how long it may run.
    """

    def __init__(self, name: str, at_once: int, waiting: int, seconds: float) -> None:
        self.name, self.at_once, self.waiting, self.seconds = name, at_once, waiting, seconds
        self._places, self._lock, self._inside = BoundedSemaphore(at_once), Lock(), 0

    @contextmanager
    def place(self) -> Iterator[Callable[[], None]]:
        """Within, the computation has a place. It gets a function that it calls between its parts, and that raises
        BusyError when its time is over.

        Raises:
            BusyError: too many wait, or no place became free in time.
        """
        with self._lock:
            if self._inside >= self.at_once + self.waiting:
                raise BusyError(f"{self._inside} computations are asked for already: try again in a minute")
            self._inside += 1
        try:
            if not self._places.acquire(timeout=self.seconds):
                raise BusyError(f"no place became free in {self.seconds:.0f} seconds: try again in a minute")
            try:
                end = time.monotonic() + self.seconds
                yield lambda: self._expect_time(end)
            finally:
                self._places.release()
        finally:
            with self._lock:
                self._inside -= 1

    def _expect_time(self, end: float) -> None:
        if time.monotonic() > end:
            raise BusyError(
                f"this takes longer than the {self.seconds:.0f} seconds that one visitor gets: use prisma in Python"
            )


LIGHT = Lane("light", at_once=2, waiting=64, seconds=30)
HEAVY = Lane("heavy", at_once=1, waiting=6, seconds=120)
