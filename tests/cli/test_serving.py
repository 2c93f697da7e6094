"""`prisma app` from the command line: mistakes, and how it ends. What it serves is tested in `tests/app`."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import prisma

MOUSE = Path(prisma.__file__).parent / "mice" / "digits"
LIMIT = 60  # seconds in which the app must have ended


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["app", "--hub", "absent"], "folder hub", "absent"),
        (["app", "--prompts", "a cat, a dog"], "prompts are the classes of a CLIP", "model=None"),
        (["app", "--model", "./absent"], "checkpoint folder", "absent"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str, found: str) -> None:
    err = mistake(*command)
    assert expected in err
    assert found in err


def test_the_app_ends_cleanly_even_where_sigint_was_ignored(tmp_path: Path) -> None:
    """On SIGINT, at a port of our choice; `tests/e2e` ends one at the default port with SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    app = [Path(sys.executable).with_name("prisma"), "app", "--model", MOUSE, "--port", port]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *app]  # as a shell script starts a background job
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(ignoring, cwd=tmp_path, text=True, start_new_session=True, **pipes) as server:
        try:
            assert server.stdout is not None
            assert f"Prisma is open at http://127.0.0.1:{port}" in server.stdout.readline()
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=LIMIT)  # ends when no process holds the pipes any more
        finally:
            server.kill()
    assert (server.returncode, out) == (0, "")
    assert "Traceback" not in err
    absent = subprocess.run(["pgrep", "-s", str(server.pid)], capture_output=True, text=True, timeout=LIMIT)
    assert absent.stdout == "", "the app left processes behind"
