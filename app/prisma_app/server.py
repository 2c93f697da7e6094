"""What the page asks the server for, beside Gradio: plain GET requests whose address is a state, and one POST.

    page.js, page.css           the viewer
    models                      the names of the models and what was found with them, as JSON
    model?model=...             what a model is, and its examples
    answer?model=...&img=...    what it answers for an image
    view/NAME?...&part=N        a view of a state (`views`)
    stream/patching?...         lines of JSON, as they are computed
    image                       POST the bytes of a picture -> its name in addresses

Everything that comes in is checked here: sizes first, then keys and values (`State.of`). A mistake is one sentence.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from prisma.errors import PrismaError, nearest
from prisma.view.browser import View, script, style
from prisma_app.answers import answer_view, model_view
from prisma_app.cache import Cache
from prisma_app.findings import findings_about
from prisma_app.lanes import HEAVY, LIGHT, BusyError
from prisma_app.library import Library
from prisma_app.pictures import MOST_BYTES, keep_upload
from prisma_app.state import State
from prisma_app.views import HEAVY_PARTS, VIEWS

MOST_QUERY = 8_000  # characters
PACKS: Cache[bytes] = Cache(128 * 2**20, len)
"""Views as they travel, by their address."""
log = logging.getLogger("prisma_app")


def routes(library: Library) -> list[Mount]:
    """What the page asks for, under /prisma."""
    return [Mount("/prisma", app=app_of(library))]


def app_of(library: Library) -> Starlette:
    """The same, for whoever mounts it."""
    page = {"page.js": (script("page"), "text/javascript"), "page.css": (style(), "text/css")}
    inner = [
        *(Route(f"/{name}", partial(_file, text=text, kind=kind)) for name, (text, kind) in page.items()),
        Route("/models", _guarded(library, _models)),
        Route("/model", _guarded(library, partial(_pack, what="model"))),
        Route("/answer", _guarded(library, partial(_pack, what="answer"))),
        Route("/view/{name}", _guarded(library, partial(_pack, what="view"))),
        Route("/stream/patching", _guarded(library, _stream)),
        Route("/image", _guarded(library, _image), methods=["POST"]),
    ]
    return Starlette(routes=inner)


def pack_of(library: Library, what: str, state: State, name: str = "", part: int | None = None) -> bytes:
    """A view as it travels; kept, so that another visitor with the same address gets the same bytes.

    An address without a commit means the one that `main` has now.
    """
    subject = library.subject(state.model, state.rev)
    pinned = state.model_copy(update={"model": subject.name, "rev": subject.rev})

    def make() -> bytes:
        with (HEAVY if (name, part) in HEAVY_PARTS else LIGHT).place():
            return view_of(library, what, pinned, name, part).pack()

    return PACKS.get((id(library), what, name, part, pinned), make)


def view_of(library: Library, what: str, state: State, name: str = "", part: int | None = None) -> View:
    """What the page draws: `what` is "model", "answer", or "view" with the name of one."""
    scene = library.scene(state)
    if what == "model":
        return model_view(scene)
    if what == "answer":
        return answer_view(scene)
    if name not in VIEWS:
        raise PrismaError(f"expected a view among {', '.join(VIEWS)}; found {nearest(name, VIEWS)}")
    found: View = VIEWS[name].view(scene, part)
    return found


async def _file(request: Request, text: str, kind: str) -> Response:
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(text, media_type=kind, headers=headers)


async def _models(library: Library, request: Request) -> Response:
    names = list(library.names)
    return JSONResponse({"models": names, "findings": findings_about(names), "build": library.build})


async def _pack(library: Library, request: Request, what: str) -> Response:
    query = _query(request)
    part = query.pop("part", None)
    if part is not None and not (part.isascii() and part.isdigit() and len(part) < 8):
        raise PrismaError("expected part as a whole number; found something else")
    state, name = State.of(query), request.path_params.get("name", "")
    data = await run_in_threadpool(pack_of, library, what, state, name, None if part is None else int(part))
    return Response(data, media_type="application/octet-stream", headers={"cache-control": "no-cache"})


async def _stream(library: Library, request: Request) -> Response:
    query = _query(request)
    what = query.pop("what", "heads")
    lines = await run_in_threadpool(_lines, library, State.of(query), what)
    return StreamingResponse(_as_lines(library, lines), media_type="application/x-ndjson")


def _lines(library: Library, state: State, what: str) -> Iterator[Mapping[str, Any]]:
    with LIGHT.place():  # the scene of a CLIP reads the visitor's prompts
        scene = library.scene(state)
    found: Iterator[Mapping[str, Any]] = VIEWS["patching"].stream(scene, what)
    return found


def _as_lines(library: Library, lines: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    """Each fact on a line. Where a visitor goes away, the server stops asking, and the computation ends there."""
    try:
        for line in lines:
            yield json.dumps(line, allow_nan=False).encode() + b"\n"
    except PrismaError as error:
        yield json.dumps({"error": sentence(library.words(error))}).encode() + b"\n"
    except Exception as error:
        log.error("a stream failed: %s", type(error).__name__)
        yield b'{"error":"This could not be computed, by a fault of the server."}\n'


async def _image(library: Library, request: Request) -> Response:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise PrismaError(f"expected an image file of at most {MOST_BYTES >> 20} MB; found more")
    return JSONResponse({"img": await run_in_threadpool(_kept, data)})


def _kept(data: bytes) -> str:
    with LIGHT.place():
        return keep_upload(data)


def _query(request: Request) -> dict[str, str]:
    if len(request.url.query) > MOST_QUERY:
        raise PrismaError(f"expected a query of at most {MOST_QUERY:,} characters; found {len(request.url.query):,}")
    return dict(request.query_params)


def _guarded(library: Library, handle: Callable[..., Any]) -> Callable[..., Any]:
    """Every error as one sentence, in JSON; what visitors sent is not logged."""

    async def guarded(request: Request) -> Response:
        try:
            answer: Response = await handle(library, request)
            return answer
        except BusyError as error:
            return JSONResponse({"error": sentence(library.words(error))}, 503, headers={"retry-after": "10"})
        except PrismaError as error:
            return JSONResponse({"error": sentence(library.words(error))}, 400)
        except Exception as error:
            log.error("%s failed: %s", request.url.path[:80], type(error).__name__)
            return JSONResponse({"error": "This could not be computed, by a fault of the server."}, 500)

    return guarded


def sentence(text: str) -> str:
    """The message of an error, as a sentence. A name that it begins with stays as it is."""
    first = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return f"{first}{text[1:]}."
