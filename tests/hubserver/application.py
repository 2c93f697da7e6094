"""One request, from its route to its answer: who asks, is it allowed now, what goes wrong, what is written down."""

import asyncio
import hashlib
import hmac
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.hubserver.connection import CutError, Exchange
from tests.hubserver.faults import Fault, Faults
from tests.hubserver.pacing import Clock, Pacing
from tests.hubserver.routes import accounts, commits, control, files, large, repositories, revisions, spaces
from tests.hubserver.routing import HUB, STORAGE, Asked, RefusedError, Route, find
from tests.hubserver.settings import Settings
from tests.hubserver.store import Store

CONTROL = "/_control/"
UNROUTED = "unrouted"
HANDLERS = (accounts, commits, control, files, large, repositories, revisions, spaces)  # whose import fills the table


@dataclass
class Record:
    """A request in the log. Neither its headers nor its query are kept: they hold tokens and signatures."""

    origin: str
    method: str
    route: str
    path: str
    authorized: bool  # whether it carried a token
    status: int = 0  # 0: no answer
    received: int = 0  # bytes of the request's body
    sent: int = 0
    fault: str | None = None


class Application:
    """The Hub and its storage, on two origins."""

    def __init__(self, root: Path, token: str | None, url: str, storage_url: str) -> None:
        self.token, self.url, self.storage_url = token, url, storage_url
        self.store, self.settings, self.clock, self.faults = Store(root), Settings(), Clock(), Faults()
        self.pacing = Pacing(self.settings, self.clock)
        self.log: list[Record] = []
        self._storage_port = int(storage_url.rpartition(":")[2])
        self._secret = secrets.token_bytes(16)

    def signed(self, url: str) -> str:
        """An address that is allowed without a token: of the storage, or of the end of an upload in parts."""
        path = url.partition("://")[2].partition("/")[2]
        return f"{url}?signature={hmac.new(self._secret, path.encode(), hashlib.sha256).hexdigest()}"

    def expect_signature(self, asked: Asked) -> None:
        given, expected = str(asked.request.url), self.signed(str(asked.request.url.replace(query="")))
        if not hmac.compare_digest(given.partition("?")[2], expected.partition("?")[2]):
            raise RefusedError(403, "SignatureDoesNotMatch")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        request = Request(scope, exchange.receive)
        origin = STORAGE if scope["server"][1] == self._storage_port else HUB
        path = scope["raw_path"].decode("ascii", "replace")
        found = find(origin, request.method, path)
        name = found[0].name if found else UNROUTED
        record = Record(origin, request.method, name, path, "authorization" in request.headers)
        if not path.startswith(CONTROL):
            self.log.append(record)
        try:
            response = await self._answer(found, request, exchange, record)
            await response(scope, exchange.receive, exchange.send)
        except (CutError, ClientDisconnect):
            exchange.status = 0
            await asyncio.sleep(0)  # until uvicorn knows
        except Exception:  # a mistake of this server, which uvicorn reports
            exchange.status = 500
            raise
        finally:
            record.status, record.received, record.sent = exchange.status, exchange.received, exchange.sent

    async def _answer(
        self, found: tuple[Route, dict[str, str]] | None, request: Request, exchange: Exchange, record: Record
    ) -> Response:
        headers: dict[str, str] = {}
        try:
            if found is None:
                raise RefusedError(404, "Sorry, we can't find the page you are looking for.")
            known, arguments = found
            asked = Asked(self, request, arguments, self._account(request, known))
            allowed, headers = self.pacing.request(known.bucket, asked.account or "anonymous")
            if not allowed:
                raise RefusedError(429, "We had to rate limit you: too many requests")
            fault = None
            if not record.path.startswith(CONTROL):
                fault = self.faults.next(known.name, request.method, record.path)
            if fault:
                record.fault = fault.kind
            response = await self._with(fault, known, asked, exchange)
        except RefusedError as refused:
            response = refused.answer()
            with suppress(RuntimeError):  # it has been read; else a client that still sends would not see the answer
                async for _ in request.stream():
                    pass
        response.headers.update(headers)
        return response

    def _account(self, request: Request, known: Route) -> str | None:
        """Whose token it is; None without one."""
        given = request.headers.get("authorization")
        if given is None:
            return None
        if known.origin == STORAGE:
            raise RefusedError(400, "Only one auth mechanism allowed; a signed address needs no Authorization header")
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not token or (self.token is not None and token != self.token):
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return self.settings.user

    async def _with(self, fault: Fault | None, known: Route, asked: Asked, exchange: Exchange) -> Response:
        """The answer, if this fault, or none, happens on the way."""
        if fault is None:
            return await known.handler(asked)
        if fault.kind == "drop" or fault.status:
            if fault.effect:
                with suppress(RefusedError):
                    await known.handler(asked)
            if fault.kind == "drop":
                raise exchange.cut()
            raise RefusedError(fault.status or 500, fault.message, headers=fault.headers)
        if fault.kind == "truncated_upload":
            exchange.upload_limit = int(asked.request.headers.get("content-length", 0)) // 2
        if fault.kind == "slow":
            await asyncio.sleep(1.0 if fault.seconds is None else fault.seconds)
        exchange.half_answer = fault.kind == "truncated_answer"
        asked.damage = fault.kind == "wrong_hash"
        return await known.handler(asked)

    def log_as_json(self) -> list[dict[str, Any]]:
        return [asdict(record) for record in self.log]
