"""The server: two sockets on this machine, the Hub's and the storage's, from its start to its end."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from uvicorn import Config
from uvicorn.server import ServerState

from tests.hubserver.application import Application
from tests.hubserver.connection import Protocol

HOST = "127.0.0.1"
TICK = 0.01  # seconds between looks at whether it shall end
GRACE = 1.0  # seconds that requests have to finish, at the end


class Server:
    """A Hub that listens from the moment it is made, and answers while `run` runs."""

    def __init__(self, root: Path, port: int = 0, token: str | None = None) -> None:
        self._sockets = [socket.create_server((HOST, port)), socket.create_server((HOST, 0))]
        self.url, storage_url = (f"http://{HOST}:{found.getsockname()[1]}" for found in self._sockets)
        self._config = Config(
            Application(root, token, self.url, storage_url),
            interface="asgi3",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            log_level="error",
            timeout_keep_alive=75,  # longer than a client keeps a connection, so that none is closed under its hands
        )
        self._ended = False

    def run(self) -> None:
        """Answer until `stop`."""
        asyncio.run(self._answer())

    def stop(self) -> None:
        """End; may be called from anywhere, and more than once."""
        self._ended = True

    async def _answer(self) -> None:
        loop, state = asyncio.get_running_loop(), ServerState()
        self._config.load()
        servers = [
            await loop.create_server(lambda: Protocol(self._config, state, {}), sock=found) for found in self._sockets
        ]
        while not self._ended:
            await asyncio.sleep(TICK)
        for server in servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        limit = time.monotonic() + GRACE
        while state.connections and time.monotonic() < limit:
            await asyncio.sleep(TICK)


def serve(root: Path, port: int, token: str | None) -> Iterator[str]:
    """Yield the address, then serve until SIGTERM or SIGINT, of which more than one do no harm."""
    server = Server(root, port, token)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    yield server.url
    server.run()
    for number in (signal.SIGTERM, signal.SIGINT):  # while Python ends, too
        signal.signal(number, signal.SIG_IGN)
