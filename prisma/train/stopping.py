"""Stopping by a signal: what the signal does happens at the end of a step, after the state was saved.

Within `Stopping`, the first SIGINT (Ctrl-C), SIGTERM or SIGHUP is only noted; `deliver` then lets it do what it would
have done without this: KeyboardInterrupt, the end of the process, or the caller's own handler. A second signal does so
at once. A signal that the process ignores (as `nohup` makes it ignore SIGHUP) stays ignored.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopping:
    """While it is open, signals that stop the process wait. Elsewhere than in the main thread it does nothing."""

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int] = {}
        self._noted: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether a signal came."""
        return self._noted is not None

    def deliver(self) -> None:
        """Let the noted signal, if any, do what it does. If that lets the process go on, the next one is noted."""
        if self._noted is not None:
            number = self._noted
            self._restore()
            signal.raise_signal(number)
            self._install()

    def __enter__(self) -> "Stopping":
        self._install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        number = self._noted
        self._restore()
        if number is not None and kind is None:
            signal.raise_signal(number)

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before is not None and before != signal.SIG_IGN:  # None: a handler that is not Python's
                self._before[number] = before
                signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        self._noted = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted is None:
            self._noted = number
            return
        self._restore()
        signal.raise_signal(number)
