"""The server: two sockets on this machine, the Hub's and the storage's, and its end."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from tests.hubserver.application import Application
from tests.hubserver.connection import Protocol

HOST = "127.0.0.1"


class _Quiet(uvicorn.Server):
    """Signals are for whoever runs it, and its end takes no tenth of a second."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.01)


class Server:
    """A Hub that listens from the moment it is made, and answers while `run` runs."""

    def __init__(self, root: Path, port: int = 0, token: str | None = None) -> None:
        self._sockets = [socket.create_server((HOST, port)), socket.create_server((HOST, 0))]
        self.url, storage_url = (f"http://{HOST}:{found.getsockname()[1]}" for found in self._sockets)
        application = Application(root, token, self.url, storage_url)
        config = uvicorn.Config(
            application,
            http=Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
            log_level="critical",  # what a test cuts is not worth a line
            timeout_graceful_shutdown=1,
        )
        self._server = _Quiet(config)

    def run(self) -> None:
        """Answer until `stop`."""
        asyncio.run(self._server.serve(self._sockets))

    def stop(self) -> None:
        """End; may be called from anywhere, and more than once."""
        self._server.should_exit = True


def serve(root: Path, port: int, token: str | None) -> Iterator[str]:
    """Yield the address, then serve until SIGTERM or SIGINT, of which more than one do no harm."""
    server = Server(root, port, token)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    yield server.url
    server.run()
