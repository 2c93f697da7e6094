"""The Hub is asked little, its answers are checked, and its silence is no problem of a repository."""

from pathlib import Path

import pytest
from huggingface_hub.utils import _http

from prisma.checkpoint import WEIGHTS
from prisma.errors import PrismaError
from prisma.publish import audit
from prisma.publish.calls import Calls, RefusedError, UnreachableError
from prisma.publish.hub_source import HubSource, named_like, on_the_hub
from tests.hubserver.making import add
from tests.hubserver.running import Hub
from tests.publish.places import REPO


@pytest.fixture
def source(published_server: Hub, tmp_path: Path) -> HubSource:
    (tmp_path / "downloads").mkdir()
    return HubSource(REPO, Calls(sleep=lambda seconds: None), cache=tmp_path / "downloads")


def test_branches_and_tags_are_labels(published_server: Hub, source: HubSource) -> None:
    published_server.api.create_tag(REPO, tag="v1", revision="step-000002")
    published_server.api.create_tag(REPO, tag="main", revision="step-000002")
    labels = source.labels()
    assert labels["v1"] == labels["refs/tags/main"] == labels["step-000002"] != labels["main"]


def test_a_download_is_checked_against_the_listing(published_server: Hub, source: HubSource) -> None:
    commit = source.labels()["step-000002"]
    sha256 = source.listing(commit)[WEIGHTS].sha256
    path = published_server.root / "models" / REPO / "lfs" / sha256
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        PrismaError, match=f"expected model.safetensors of .* bytes of hash {sha256}, as the Hub lists it"
    ):
        source.folder(commit, [WEIGHTS])
    source.forget()
    assert not list(source.cache.iterdir())
    found = audit(REPO, deep=True)
    assert any("as the Hub lists it; found" in finding.problem for finding in found)


def test_a_name_that_leads_elsewhere_is_not_downloaded(source: HubSource) -> None:
    commit = source.labels()["main"]
    for name in ("absent.json", "../../up"):
        with pytest.raises(PrismaError, match="expected a file"):
            source.folder(commit, [name])


def test_listings_are_bounded(source: HubSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.publish.remote.MOST_FILES", 4)
    monkeypatch.setattr("prisma.publish.hub_source.MOST_FILES", 4)
    commit = source.labels()["main"]
    assert len(source.listing(commit)) <= 4
    assert source.problems(commit, ours=True) == ["expected at most 4 files; found more, which were not looked at"]


def test_a_header_that_is_none_is_an_error(published_server: Hub, source: HubSource) -> None:
    published_server.api.create_commit(REPO, add({WEIGHTS: b"\xff" * 300}), commit_message="x", revision="step-000002")
    with pytest.raises(PrismaError, match="header of model"):
        source.header(source.labels()["step-000002"], WEIGHTS)


def test_faults_that_pass_are_no_problem(published_server: Hub, source: HubSource) -> None:
    published_server.fail("503", "tree")
    published_server.fail("drop", "refs")
    assert source.listing(source.labels()["main"])


def test_a_hub_that_does_not_answer_ends_the_audit(
    published_server: Hub, source: HubSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    published_server.fail("503", "tree", times=None)
    with pytest.raises(UnreachableError, match=r"expected the Hub to list the files at .* 8 times"):
        source.listing(source.labels()["main"])


def test_a_repository_that_is_not_there_is_one_sentence(published_server: Hub) -> None:
    with pytest.raises(RefusedError, match="expected the Hub to list the branches of lab/absent; found no such"):
        audit("lab/absent")
    with pytest.raises(PrismaError, match="expected OWNER/NAME"), on_the_hub("nonsense"):
        pass
    assert published_server.asked("refs")


def test_repositories_by_the_beginning_of_their_names(published_server: Hub) -> None:
    published_server.api.create_repo("lab/tiger")
    assert named_like("lab/ti*") == ["lab/tiger", "lab/tiny"]
    assert named_like("lab/x*") == []
