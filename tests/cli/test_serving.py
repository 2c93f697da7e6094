"""`prisma app` from the command line: mistakes, and how it ends. What it serves is tested in `tests/app`."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
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
    """Two apps start at the same time, one at the default port, and each gets its own signal."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    app: list[str | Path] = [Path(sys.executable).with_name("prisma"), "app", "--model", MOUSE]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *app]  # as a shell script starts a background job
    with ExitStack() as stack:
        servers: dict[signal.Signals, subprocess.Popen[str]] = {}
        for sent, options in ((signal.SIGTERM, []), (signal.SIGINT, ["--port", port])):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            server = subprocess.Popen([*ignoring, *options], cwd=tmp_path, text=True, start_new_session=True, **pipes)
            servers[sent] = stack.enter_context(server)
            stack.callback(server.kill)
        for sent, server in servers.items():
            assert server.stdout is not None
            assert "Prisma is open at" in server.stdout.readline(), sent.name
            server.send_signal(sent)
            out, err = server.communicate(timeout=LIMIT)  # ends when no process holds the pipes any more
            assert (server.returncode, out) == (0, ""), sent.name
            assert "Traceback" not in err, sent.name
            absent = subprocess.run(["pgrep", "-s", str(server.pid)], capture_output=True, text=True, timeout=LIMIT)
            assert absent.stdout == "", f"{sent.name}: the app left processes behind"
