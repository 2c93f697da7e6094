"""Of Gradio's server a visitor reaches the page and the endpoints, with plain arguments, and nothing else."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from prisma_app.guard import Guard, Message, Scope

from tests.app.conftest import DIGITS


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/upload", "gradio_api/component_server", "gradio_api/vibe-edit", "gradio_api/deep_link",
        "gradio_api/run/predict", "gradio_api/call/nope", "gradio_api/run/__init__", "login", "gradio_api/stream/x",
    ],
)  # fmt: skip
def test_other_functions_cannot_be_called(url: str, path: str) -> None:
    found = httpx.post(url + path, json={"data": ["x"]})
    assert found.status_code == 404 and found.json()["error"].startswith("Expected ")


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd", "file=/etc/passwd", "gradio_api/proxy=http://127.0.0.1/", "monitoring", "docs",
        "openapi.json", "gradio_api/deep_link", "static/../../etc/passwd", "gradio_api/component_server",
    ],
)  # fmt: skip
def test_other_pages_cannot_be_read(url: str, path: str) -> None:
    found = httpx.get(url + path)
    assert found.status_code in (400, 403, 404) and "root:" not in found.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": [["a"]]}, 422),
        ({"data": [{"a": 1}]}, 422),
        ({"data": "x"}, 422),
        ({"data": ["x" * 9000]}, 422),
        ({"data": [None] * 41}, 422),
        ([1], 422),
        (b"{", 422),
        (b"[" * 60_000, 422),
        ({"data": [], "fn_index": 3}, 422),
        ({"data": [None] * 8, "fn_index": 3}, 422),
        ({"data": ["x" * 70_000]}, 413),
    ],
)
@pytest.mark.parametrize("path", ["gradio_api/run/attention", "gradio_api/call/attention", "gradio_api/queue/join"])
def test_other_arguments_are_refused_before_gradio_reads_them(url: str, path: str, body: Any, status: int) -> None:
    found = httpx.post(url + path, content=body) if isinstance(body, bytes) else httpx.post(url + path, json=body)
    assert found.status_code == status and len(found.text) < 300


@pytest.mark.parametrize("number", [-1, 99, 1.5, "0", None, True])
def test_functions_by_number(url: str, number: Any) -> None:
    found = httpx.post(f"{url}gradio_api/queue/join", json={"data": [], "fn_index": number, "session_hash": "a"})
    assert found.status_code == 404


def test_an_endpoint_can_be_called_without_the_queue(url: str) -> None:
    found = httpx.post(f"{url}gradio_api/run/answer", json={"data": [DIGITS, 8, "0", None, None]}, timeout=60)
    assert found.status_code == 200 and len(found.json()["data"][0]["logits"]) == 10


def test_arguments_by_name_are_those_of_the_endpoint(url: str) -> None:
    path = f"{url}gradio_api/call/v2/attention"
    assert httpx.post(path, json={"layer": 1}).status_code == 200
    refused = httpx.post(path, json={"layer": 1, "my secret": 1})
    assert refused.status_code == 422 and "secret" not in refused.text


@pytest.mark.parametrize("path", ["call/attention/abc", "call/v2/attention/abc", "queue/data?session_hash=abc"])
def test_answers_that_nobody_waits_for(url: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = httpx.get(f"{url}gradio_api/{path}")
    assert found.status_code == 200 and "404: Not Found" in found.text
    written = [record for record in caplog.records if record.name.startswith(("prisma", "uvicorn.error"))]
    assert [record.getMessage() for record in written] == ["a request failed: HTTPException"]
    assert written[0].exc_info is None


@pytest.mark.parametrize(("begun", "status", "bodies"), [(0, 500, 1), (1, 200, 2), (2, 200, 1)])
def test_what_gradio_raises_ends_the_answer(begun: int, status: int, bodies: int) -> None:
    """Before the answer, in its middle, and after its end."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def broken(scope: Scope, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": begun == 1})
        raise ValueError("what the visitor wrote")

    asyncio.run(Guard(broken, {})({"type": "http", "method": "GET", "path": "/"}, receive, send))
    assert sent[0]["status"] == status and "visitor" not in str(sent)
    assert [message["type"] for message in sent[1:]] == ["http.response.body"] * bodies
    assert not sent[-1].get("more_body")
