"""One exchange over a connection, whose bytes are counted, and which can be cut."""

import asyncio
import socket

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

OPEN: dict[tuple[str, int, int | None], asyncio.Transport] = {}  # (the client's address and port, our port) -> its own


class Protocol(H11Protocol):
    """Uvicorn's protocol, which remembers its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # answer at once
        if self.client and self.server:
            OPEN[(*self.client, self.server[1])] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.client and self.server:
            OPEN.pop((*self.client, self.server[1]), None)


class CutError(Exception):
    """The connection has been cut."""


class Exchange:
    """What is received and sent for one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._key = (*scope["client"], scope["server"][1])
        self._receive, self._send = receive, send
        self.received = self.sent = self.status = 0
        self.upload_limit: float = float("inf")  # bytes of the request after which the connection is cut
        self.half_answer = False  # cut the connection when half of the answer is sent
        self._answer_limit = float("inf")

    def cut(self) -> CutError:
        if transport := OPEN.get(self._key):
            transport.abort()
        return CutError()

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if self.received > self.upload_limit:
            raise self.cut()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            length = dict(message.get("headers", [])).get(b"content-length", b"0")
            if self.half_answer:
                self._answer_limit = int(length) // 2
        body = message.get("body", b"")
        if self.sent + len(body) > self._answer_limit:
            part = body[: int(self._answer_limit) - self.sent]
            await self._send({**message, "body": part, "more_body": True})
            self.sent += len(part)
            if transport := OPEN.get(self._key):
                transport.close()  # what is sent arrives
            raise CutError
        self.sent += len(body)
        await self._send(message)
