"""What of Gradio's own server a visitor may reach: the page, its files, and the endpoints, with plain arguments.

Gradio offers much more: uploads to disk, any function by number, files by path, a page that edits the app. The page
needs none of it (the viewer asks `prisma_app.server`), so that everything else is refused before it is read.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

MOST_BODY = 64_000  # bytes of a request to an endpoint
MOST_ARGUMENTS, MOST_TEXT = 40, 8_000  # of one call; characters of one argument
READ = re.compile(
    r"/|/(assets|static|svelte)/.*|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\d+)?)/?"
    r"|/gradio_api/(info|queue/data|queue/status|startup-events|app_id|openapi\.json|heartbeat/[\w-]+)/?"
    r"|/gradio_api/call/(?:v2/)?[a-z]+/[\w-]+|/gradio_api/(user|login_check)/?"
)
CALL = re.compile(r"/gradio_api/(?:run|call|call/v2)/(?P<name>[^/]+)/?")
JOIN = re.compile(r"/gradio_api/queue/join/?")
OTHER_POSTS = re.compile(r"/gradio_api/(cancel|reset)/?")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


log = logging.getLogger("prisma_app")


class RefusedError(Exception):
    """A request that is not let through: the status, and a sentence that says what was expected."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """Lets through what the page and programs need, and refuses the rest with one sentence.

    Args:
        endpoints: the names of each endpoint's arguments, in the order in which they were added: Gradio also calls them
            by number.
        open_: beginnings of further paths that are let through as they are.
    """

    def __init__(
        self, app: Any, endpoints: Mapping[str, Sequence[str]], open_: Collection[str] = ("/prisma/",)
    ) -> None:
        self.app, self.endpoints, self.open = app, dict(endpoints), tuple(open_)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        try:
            receive = await self._checked(scope, receive)
        except RefusedError as refused:
            await JSONResponse({"error": f"{refused}."}, refused.status)(scope, receive, send)
            return
        await self._passed_on(scope, receive, send)

    async def _passed_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as Gradio answers it. What it raises, also amid an answer, is one line of the log."""
        begun = over = False

        async def sending(message: Message) -> None:
            nonlocal begun, over
            begun, over = True, message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            log.error("a request failed: %s", type(error.__cause__ or error).__name__)
            if not begun:
                await JSONResponse({"error": "A fault of the server."}, 500)(scope, receive, send)
            elif not over:
                await send({"type": "http.response.body", "body": b""})

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        path, method = scope["path"].removeprefix(scope.get("root_path", "")) or "/", scope["method"]
        if path.startswith(self.open):
            return receive
        if method in ("GET", "HEAD") and READ.fullmatch(path):
            return receive
        if method == "POST" and OTHER_POSTS.fullmatch(path):
            return _again(await _body(receive))
        call = CALL.fullmatch(path)
        if method != "POST" or not (call or JOIN.fullmatch(path)):
            raise RefusedError(404, "Expected the page, or one of its endpoints; found another path")
        body = await _body(receive)
        asked = _expect_call(body)
        if call:
            asked = {**asked, "name": call["name"]}
        self._expect_endpoint(asked)
        return _again(body)

    def _expect_endpoint(self, asked: dict[str, Any]) -> None:
        known = ", ".join(f"/{name}" for name in self.endpoints)
        number = asked.get("fn_index")
        if "name" in asked:
            if asked["name"] not in self.endpoints:
                raise RefusedError(404, f"Expected an endpoint among {known}; found another")
        elif type(number) is not int or not 0 <= number < len(self.endpoints):
            raise RefusedError(
                404, f"Expected an endpoint by number, from 0 to {len(self.endpoints) - 1}; found another"
            )
        name = asked["name"] if "name" in asked else list(self.endpoints)[int(number or 0)]
        arguments = self.endpoints[name]
        if "data" in asked and len(asked["data"]) != len(arguments):
            raise RefusedError(
                422, f"Expected {len(arguments)} arguments of /{name}, null for a default; found another number"
            )
        if "data" not in asked and not asked.keys() <= {*arguments, "name", "fn_index", "session_hash"}:
            raise RefusedError(422, f"Expected arguments of /{name} among {', '.join(arguments)}; found another")


def _expect_call(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(422, "Expected JSON; found something else") from None
    if not isinstance(asked, dict):
        raise RefusedError(422, "Expected a JSON object; found something else")
    given = asked.get("data", [])
    values = given if isinstance(given, list) else None
    if "data" not in asked:  # the arguments by name, without Gradio's envelope
        values = list(asked.values())
    if values is None or len(values) > MOST_ARGUMENTS or not all(_is_plain(value) for value in values):
        raise RefusedError(
            422, f"Expected at most {MOST_ARGUMENTS} arguments, each text, a number or null; found something else"
        )
    return asked


def _is_plain(value: Any) -> bool:
    return (
        value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MOST_TEXT)
    )


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError(400, "Expected a whole request; found one that broke off")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            raise RefusedError(413, f"Expected a request of at most {MOST_BODY:,} bytes; found more")
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes) -> Receive:
    """The body once more, and then what a closed connection says."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
