"""Commands of `prisma` in real processes, which a test can start together or stop."""

import os
import pkgutil
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch

from prisma.cli import main
from tests import processes


def command(arguments: Sequence[str], stderr: Path) -> None:
    """What a process does: the command, whose stderr goes to a file."""
    sys.argv = ["prisma", *arguments]
    with stderr.open("w") as file, redirect_stderr(file), redirect_stdout(file):
        main()


def command_on_a_full_disk(arguments: Sequence[str], stderr: Path, free: int) -> None:
    """The same where no file can have more than `free` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))
    command(arguments, stderr)


def command_killed_at(arguments: Sequence[str], stderr: Path, function: str) -> None:
    """The same, killed by SIGKILL where it would call a function (`package.module.name`)."""
    with patch(function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)):
        command(arguments, stderr)


def contend(jobs: Connection, together: Barrier, stderr: Path) -> None:
    """What a process of `Contenders` does: commands, until there is none."""
    while arguments := jobs.recv():
        function, words = arguments
        try:
            with patch(function, _meeting(together, pkgutil.resolve_name(function))) if function else nullcontext():
                if not function:
                    together.wait(timeout=120)
                command(words, stderr)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        jobs.send((code, stderr.read_text()))


def _meeting(together: Barrier, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that first waits until it is called in every process."""

    def wait(*arguments: Any, **named: Any) -> Any:
        together.wait(timeout=120)
        return function(*arguments, **named)

    return wait


class Contenders:
    """Processes that have imported everything, and that run commands at the same moment."""

    def __init__(self, n: int, folder: Path) -> None:
        context = processes.context()
        self.together = context.Barrier(n)  # kept: it is gone when this process forgets it
        pairs = [context.Pipe() for _ in range(n)]
        self.pipes = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(target=contend, args=(theirs, self.together, folder / f"stderr-{i}"))
            for i, (_, theirs) in enumerate(pairs)
        ]

    def __call__(self, *commands: Sequence[str], at: str = "") -> list[tuple[int, str]]:
        """The exit code and the messages of each command.

        Args:
            at: the function (`package.module.name`) at which all wait for each other; by default, at their beginning.
        """
        for pipe, arguments in zip(self.pipes, commands, strict=True):
            pipe.send((at, arguments))
        assert all(pipe.poll(120) for pipe in self.pipes), "one did not end"
        return [pipe.recv() for pipe in self.pipes]

    def __enter__(self) -> "Contenders":
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            if kind is None:
                pipe.send(())
                processes.ended(process)
            else:
                process.kill()
