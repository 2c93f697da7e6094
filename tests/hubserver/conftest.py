"""A Hub for each test, which was asked for nothing that it does not know, and told no token to its storage."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _http

from tests.hubserver.making import REPO
from tests.hubserver.running import Hub, use


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(tmp_path / "root") as hub:
        use(monkeypatch, hub.url, tmp_path / "cache")
        yield hub
        log = hub.requests
    assert [row for row in log if row["route"] == "unrouted"] == []
    assert not any(row["authorized"] for row in log if row["origin"] == "storage")


@pytest.fixture
def api(server: Hub) -> HfApi:
    """The client, and a private repository."""
    server.api.create_repo(REPO, private=True)
    return server.api


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited, one number for each time."""
    waits: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", waits.append)
    return waits
