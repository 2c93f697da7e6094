"""Files of the Hub: from a Hub on this machine, from the cache without it, and at once one sentence without either."""

import importlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import prisma
from prisma import downloads
from prisma.downloads import download, download_if_there, from_the_hub, no_network
from prisma.errors import PrismaError
from tests.hubserver.running import serving, use

FILE = "/lab/d/resolve/main/config.json"
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, on which nothing listens


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_HUB", downloads._Hub())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text('{"here": 1}')
    return tmp_path / "d"


def test_a_file_comes_from_the_hub_and_then_from_its_cache(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, tmp_path, {"lab/d": repository}) as hub:
        found = download("lab/d", "config.json")
        assert found.read_text() == '{"here": 1}'
        assert found.parent.name == hub.api.model_info("lab/d").sha
        assert download_if_there("lab/d", "absent.json") is None
        assert not hub.asked("home")  # only what it answers for the file counts, and it is asked once
        paths = [row["path"] for row in hub.requests]
        assert paths.count(FILE) == 3  # whether it answers, what the file is, the file
        with pytest.raises(PrismaError, match=r"lab/d has no absent.json; write x"):
            download("lab/d", "absent.json", hint="; write x")
        with pytest.raises(PrismaError, match=r"lab/other is not on the Hub; if it is private"):
            download("lab/other", "config.json")
    monkeypatch.setattr(downloads, "_HUB", downloads._Hub())
    began = time.monotonic()
    assert download("lab/d", "config.json") == found
    assert time.monotonic() - began < downloads.WAIT + 1


@pytest.mark.parametrize("ref", ["lab/d", "hf/lab/d", "timm/vit_tiny_patch16_224", "open_clip/lab/d"])
def test_without_a_network_the_sentence_says_so_at_once(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, NOWHERE, tmp_path)
    importlib.import_module({"lab": "torch", "hf": "transformers"}.get(ref.split("/")[0], ref.split("/")[0]))
    began = time.monotonic()  # imports are no waiting
    with pytest.raises(PrismaError, match=r"is not in the Hub's cache .*and the Hub .*cannot be reached .*refused"):
        prisma.load(ref)
    assert time.monotonic() - began < downloads.WAIT + 2
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        monkeypatch.setattr(downloads, "WAIT", 0.3)
        began = time.monotonic()
        for file in ("config.json", "other.json"):
            with pytest.raises(PrismaError, match=r"cannot be reached \((timed out|no answer within 0.3 seconds)"):
                download("lab/d", file)
        assert time.monotonic() - began < 2


def test_a_hub_that_is_down_is_named(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, tmp_path, {"lab/d": repository}) as hub:
        hub.fail("503", times=None)
        with pytest.raises(
            PrismaError, match=r"cannot be reached .it answers with status 503.: connect to the network"
        ):
            download("lab/d", "config.json")
        assert [row["path"] for row in hub.requests] == [FILE]


def test_the_users_choice_to_be_offline_is_respected(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, tmp_path, {"lab/d": repository}) as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(PrismaError, match=r"and HF_HUB_OFFLINE is set: unset it to download"):
            download("lab/d", "config.json")
        assert hub.requests == []
        assert str(no_network()).startswith("HF_HUB_OFFLINE is set")


def test_blocks_that_overlap_leave_the_client_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, NOWHERE, tmp_path)
    outer, inner = from_the_hub(), from_the_hub()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # as in two threads
    assert constants.HF_HUB_OFFLINE
    inner.__exit__(None, None, None)
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "expected OWNER/NAME .* is empty"), ("a/b/c", "expected OWNER/NAME .* has 3 parts instead of two")],
)
def test_a_name_that_is_none(name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, NOWHERE, tmp_path)
    with pytest.raises(PrismaError, match=sentence):
        download(name, "config.json")


@pytest.mark.parametrize("root", [301, 401, 404, 405, 500, 501, 503])
def test_a_mirror_that_has_nothing_at_its_root_serves_files(
    root: int, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, tmp_path, {"lab/d": repository}) as hub:
        hub.fail(str(root), "home", times=None)
        with from_the_hub():  # as around a library that asks for files of its own choice
            assert not constants.HF_HUB_OFFLINE
        assert no_network() is None
        assert download("lab/d", "config.json").read_text() == '{"here": 1}'
        assert download_if_there("lab/d", "absent.json") is None


def test_what_the_hub_answers_for_one_file_says_nothing_about_another(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, tmp_path, {}) as hub:
        hub.fail("503", times=None)
        assert no_network("lab/d", "broken.json") is not None
        monkeypatch.setattr(downloads, "_ask", lambda _: (200, None))
        assert no_network("lab/d", "broken.json") is not None  # remembered
        assert no_network("lab/d", "config.json") is None


@pytest.mark.parametrize("seconds", ["9" * 5_000, "-5", "much", "\u0665", "nan", "inf", "1e9", ""])
def test_a_time_limit_that_is_none_is_not_used(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", seconds)
    assert downloads._seconds() == downloads.WAIT
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "7.5")
    assert downloads._seconds() == 7.5


@pytest.mark.parametrize("revision", ["", "half\ud800", "a\0", 5])
def test_a_revision_that_is_none(revision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, NOWHERE, tmp_path)
    with pytest.raises(PrismaError, match=r"^expected a revision of lab/d as a branch, tag or commit; found"):
        download("lab/d", "config.json", revision)
