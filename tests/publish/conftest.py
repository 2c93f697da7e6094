"""A published run, in a folder hub or on a Hub of this machine: what is true of one is true of the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prisma.publish import publish
from tests.hubserver.conftest import server, sleeps
from tests.hubserver.running import Hub, use

__all__ = ["place", "server", "sleeps"]


@pytest.fixture(params=["folder", "Hub"])
def place(
    request: pytest.FixtureRequest, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path | None]:
    """Where `run` is published as lab/tiny: a folder hub, or (None) the Hugging Face Hub."""
    if request.param == "folder":
        hub = request.getfixturevalue("hub")
        yield hub
        return
    with Hub(tmp_path / "server") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        publish(run, "lab/tiny", progress=False)
        yield None
        assert not server.asked("unrouted")
