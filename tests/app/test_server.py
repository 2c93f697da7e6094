"""What the page asks for over HTTP: the numbers, a sentence for each mistake, and a log without what visitors sent."""

import io
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image
from prisma_app import server
from prisma_app.lanes import Lane
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import VIEWS
from starlette.applications import Starlette
from starlette.testclient import TestClient

import prisma
from tests.app.conftest import DIGITS
from tests.app.unpack import attention, unpack


@pytest.fixture(scope="module")
def client(library: Library) -> TestClient:
    return TestClient(Starlette(routes=server.routes(library)))


@pytest.fixture(scope="module")
def ask(client: TestClient) -> Callable[..., httpx.Response]:
    return lambda path, **keys: client.get(f"/prisma/{path}", params=keys)


def test_a_view_is_the_librarys_numbers(ask: Callable[..., httpx.Response], scene: Callable[..., Scene]) -> None:
    facts, arrays = unpack(ask("view/attention", model=DIGITS, step=16, img=3, part=1).content)
    there = scene(model=DIGITS, step=16, img="3")
    _, acts = prisma.record(there.loaded.model, there.picture.x[None], "blocks.1.attn.pattern")
    expected = acts["blocks.1.attn.pattern"][0]
    assert (attention(arrays) - expected).abs().max() < 2.1e-3 * expected.max()
    assert facts["state"]["step"] == 16 and facts["state"]["rev"] == there.subject.rev


def test_equal_addresses_have_equal_bytes_and_are_made_once(
    ask: Callable[..., httpx.Response], scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"model": DIGITS, "rev": scene(model=DIGITS).subject.rev, "step": 4, "img": 5, "part": 0}
    first = ask("view/attention", **asked)
    monkeypatch.setattr(server, "view_of", None)  # a second computation would fail
    assert ask("view/attention", **asked).content == first.content


@pytest.mark.parametrize(
    ("path", "keys", "status", "sentence"),
    [
        ("view/attention", {"step": "x"}, 400, "Expected step as a whole number; found 'x'."),
        ("view/attention", {"step": "3"}, 400, "lab/digits publishes 8 training steps"),
        ("view/attention", {"part": "x"}, 400, "Expected part as a whole number"),
        ("view/attention", {"part": "9"}, 400, "Expected a layer from 0 to 1; found 9."),
        ("view/lens", {"part": "21842"}, 400, "Expected a class from 0 to 9; found 21842."),
        ("view/attention", {"model": "../../etc/passwd"}, 400, "There is no model '../../etc/passwd' here"),
        ("view/attention", {"rev": "main/../.."}, 400, ""),
        ("view/nope", {}, 400, "Expected a view among attention, lens"),
        ("view/__init__", {}, 400, "Expected a view among"),
        ("model", {"model": "<script>"}, 400, "There is no model"),
        ("answer", {"img": "sha256:00"}, 400, "Expected the image of this link to be here"),
        ("answer", {"img": "a" * 9000}, 400, "Expected a query of at most 8,000 characters"),
        ("stream/patching", {"metric": "x"}, 400, "Expected metric as logit_diff"),
        ("nothing", {}, 404, ""),
    ],
)
def test_mistakes_are_one_sentence(
    ask: Callable[..., httpx.Response], path: str, keys: dict[str, str], status: int, sentence: str
) -> None:
    found = ask(path, **keys)
    assert found.status_code == status
    if status == 400:
        assert found.json()["error"].startswith(sentence) and len(found.text) < 700


def test_a_fault_of_the_server_is_a_short_line_without_what_the_visitor_sent(
    ask: Callable[..., httpx.Response], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("a secret of the visitor")

    monkeypatch.setattr(server, "view_of", broken)
    with caplog.at_level(logging.INFO):
        found = ask("view/lens", model=DIGITS, prompts="my words")
    assert (found.status_code, found.json()["error"]) == (500, "This could not be computed, by a fault of the server.")
    assert "my words" not in caplog.text and "secret" not in caplog.text and "TypeError" in caplog.text


def test_too_many_at_once_are_told_so(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LIGHT", Lane("test", at_once=1, waiting=0, seconds=5))
    inside, leave, refused = threading.Event(), threading.Event(), []

    def slow(*_: Any) -> Any:
        inside.set()
        leave.wait(10)
        return server.View({})

    monkeypatch.setattr(server, "view_of", slow)
    first = threading.Thread(target=lambda: server.pack_of(library, "answer", State()))
    first.start()
    inside.wait(10)
    try:
        server.pack_of(library, "answer", State(img="3"))
    except prisma.PrismaError as error:
        refused.append(str(error))
    leave.set()
    first.join()
    assert refused == ["1 computations are asked for already: try again in a minute"]


def test_an_upload_is_kept_in_memory_and_named_by_its_hash(
    client: TestClient, ask: Callable[..., httpx.Response]
) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(buffer, "PNG")
    posted = client.post("/prisma/image", content=buffer.getvalue())
    facts, _ = unpack(ask("answer", img=posted.json()["img"]).content)
    assert facts["caption"] == "Your image" and facts["label"] is None
    for data, sentence in ((b"no picture", "Expected an image file"), (bytes(9 * 2**20), "at most 8 MB; found more")):
        refused = client.post("/prisma/image", content=data)
        assert refused.status_code == 400 and sentence in refused.json()["error"]


def test_the_scripts_are_one_file_that_a_browser_may_keep(
    ask: Callable[..., httpx.Response], client: TestClient
) -> None:
    found = ask("page.js")
    again = client.get("/prisma/page.js", headers={"if-none-match": found.headers["etag"]})
    assert (found.status_code, again.status_code, again.content) == (200, 304, b"")
    assert "import " not in found.text.split("(() => {")[1][:2000]


def test_a_stream_is_lines_of_json(ask: Callable[..., httpx.Response]) -> None:
    lines = [json.loads(line) for line in ask("stream/patching", model=DIGITS).text.splitlines()]
    assert len(lines) >= 1 and all("error" not in line for line in lines)


def test_every_view_has_its_three_functions() -> None:
    for name, view in VIEWS.items():
        assert all(callable(getattr(view, function)) for function in ("view", "values", "code")), name
