"""What the tests of the command line share."""

from collections.abc import Callable

Prisma = Callable[..., tuple[int, str, str]]
"""Run a command in this process, in an empty folder -> (exit code, stdout, stderr)."""


def one_sentence(stderr: str) -> str:
    """The last line, after any progress; there must be no traceback."""
    assert "Traceback" not in stderr
    return stderr.strip().splitlines()[-1]
