"""A mouse that is published on a Hub on this machine, made once; and the same in a folder hub."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prisma.publish import publish
from tests.conftest import REPO, made_once
from tests.hubserver.conftest import server, sleeps
from tests.hubserver.running import Hub, use
from tests.publish.places import InFolder, OnHub, Place

__all__ = ["address", "place", "published_root", "published_server", "server", "sleeps"]


@pytest.fixture(scope="session")
def published_root(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a Hub keeps after `finished_run` was published there, and that nobody may change."""

    def make(root: Path) -> None:
        run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("sent") / "run"))
        with pytest.MonkeyPatch.context() as patch, Hub(root) as server:
            use(patch, server.url, run.parent / "cache")
            publish(run, REPO, progress=False)

    return made_once(tmp_path_factory, "published_root", make)


@pytest.fixture
def published_server(published_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that serves `finished_run` as lab/tiny."""
    shutil.copytree(published_root, tmp_path / "root")
    with Hub(tmp_path / "root") as hub:
        use(monkeypatch, hub.url, tmp_path / "cache")
        yield hub
        assert [row for row in hub.requests if row["route"] == "unrouted"] == []


@pytest.fixture(params=["folder", "Hub"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where `finished_run` is published as lab/tiny: in a folder hub, then on a Hub."""
    if request.param == "folder":
        return InFolder(request.getfixturevalue("hub"))
    return OnHub(request.getfixturevalue("published_server"))


@pytest.fixture(params=["folder", "Hub"])
def address(request: pytest.FixtureRequest, run: Path) -> Path | None:
    """Where `run` is published as lab/tiny, as functions take it: a folder hub, or (None) the Hugging Face Hub."""
    if request.param == "folder":
        return request.getfixturevalue("hub")
    request.getfixturevalue("published_server")
    return None
