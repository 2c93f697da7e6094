"""Striking a process at a chosen moment: before its n-th operation of the file system."""

import os
import signal
from collections.abc import Callable, Sequence

import pytest

OPERATIONS = ("fsync", "replace", "symlink", "mkdir")
"""What writing to a disk consists of, by the names of the functions in `os`."""


def before_operation(
    patch: pytest.MonkeyPatch, moment: int, strike: Callable[[], object], names: Sequence[str] = OPERATIONS
) -> list[str]:
    """Call `strike` right before operation number `moment`, from now on; the list grows by the name of each."""
    done: list[str] = []

    def watched(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            done.append(name)
            if len(done) == moment:
                strike()
            return original(*arguments, **options)

        return operation

    for name in names:
        patch.setattr(os, name, watched(name, getattr(os, name)))
    return done


def die() -> None:
    """What `kill -9` does to this process."""
    os.kill(os.getpid(), signal.SIGKILL)
