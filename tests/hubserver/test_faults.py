"""Each fault does what it says."""

import hashlib
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import _http

from tests.hubserver.faults import Chance, Fault, Faults
from tests.hubserver.making import REPO, WEIGHTS, commit
from tests.hubserver.running import Hub

LOST = (*_http._DEFAULT_RETRY_ON_EXCEPTIONS,)


def head(api: HfApi) -> str:
    return str(api.model_info(REPO).sha)


@pytest.mark.parametrize("status", [402, 403, 412, 429, 500, 502, 503])
@pytest.mark.parametrize("effect", [False, True])
def test_an_answer_is_an_error_before_or_after_the_effect(status: int, effect: bool, api: HfApi, server: Hub) -> None:
    before = head(api)
    server.fail(str(status), "commit", effect=effect)
    with pytest.raises(HfHubHTTPError) as error:
        commit(api, {"a.txt": b"1"})
    assert error.value.response.status_code == status
    assert (head(api) != before) == effect
    assert [(row["status"], row["fault"]) for row in server.asked("commit")] == [(status, str(status))]
    assert server.faults == []
    commit(api, {"a.txt": b"2"})


@pytest.mark.parametrize("effect", [False, True])
def test_the_connection_is_dropped_before_or_after_the_effect(effect: bool, api: HfApi, server: Hub) -> None:
    before = head(api)
    server.fail("drop", "commit", effect=effect)
    with pytest.raises(LOST):
        commit(api, {"a.txt": b"1"})
    assert (head(api) != before) == effect
    assert server.asked("commit")[0]["status"] == 0
    assert api.list_repo_commits(REPO)[0].title == ("step" if effect else "initial commit")


def test_the_client_repeats_what_it_repeats(api: HfApi, server: Hub, sleeps: list[float]) -> None:
    server.fail("503", "lfs_put", times=2)
    server.fail("429", "preupload", seconds=7)
    server.fail("truncated_upload", "lfs_put", after=2)
    commit(api, {"w.bin": WEIGHTS})
    assert sleeps == [8, 1, 2, 4]
    rows = server.asked("lfs_put")
    assert [row["status"] for row in rows] == [503, 503, 0, 200]
    assert rows[-1]["received"] == len(WEIGHTS)
    assert server.asked("lfs_complete") == []


def test_an_upload_that_breaks_off_keeps_nothing(api: HfApi, server: Hub, sleeps: list[float]) -> None:
    server.fail("truncated_upload", "lfs_put", times=None)
    with pytest.raises((*LOST, RuntimeError)):
        commit(api, {"w.bin": bytes(5_000_000)})
    assert len(server.asked("lfs_put")) == 6
    assert not (server.root / "models" / REPO / "lfs").exists()
    assert list((server.root / "uploads").iterdir()) == []
    before = head(api)
    server.heal()
    server.fail("truncated_upload", "commit")
    with pytest.raises(LOST):
        commit(api, {"a.txt": b"1"})
    assert head(api) == before


def test_an_answer_that_breaks_off_is_fetched_again(api: HfApi, server: Hub, sleeps: list[float]) -> None:
    commit(api, {"w.bin": WEIGHTS})
    server.fail("truncated_answer", "lfs_get")
    assert Path(api.hf_hub_download(REPO, "w.bin")).read_bytes() == WEIGHTS
    assert [row["sent"] for row in server.asked("lfs_get")] == [len(WEIGHTS) // 2, len(WEIGHTS)]


def test_a_slow_answer(api: HfApi, server: Hub) -> None:
    server.fail("slow", "info", seconds=0.3)
    began = time.monotonic()
    api.model_info(REPO)
    assert 0.3 <= time.monotonic() - began < 5
    assert server.asked("info")[0]["status"] == 200


def test_the_storage_keeps_other_bytes(api: HfApi, server: Hub) -> None:
    server.fail("wrong_hash", "lfs_put")
    commit(api, {"w.bin": WEIGHTS})
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert api.get_paths_info(REPO, "w.bin")[0].lfs.sha256 == sha256
    found = Path(api.hf_hub_download(REPO, "w.bin")).read_bytes()
    assert (len(found), hashlib.sha256(found).hexdigest() == sha256) == (len(WEIGHTS), False)


@pytest.mark.parametrize(("path", "data"), [("w.bin", WEIGHTS), ("a.txt", b"1")])
def test_a_commit_records_another_file(path: str, data: bytes, api: HfApi, server: Hub) -> None:
    commit(api, {"b.txt": b"b"})
    clean = api.create_repo("lab/clean").repo_id
    api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=clean)
    server.fail("wrong_hash", "commit")
    commit(api, {path: data})
    wrong, right = api.get_paths_info(REPO, path)[0], api.get_paths_info(clean, path)[0]
    assert wrong.size == right.size
    assert wrong.blob_id != right.blob_id
    assert Path(api.hf_hub_download(REPO, path)).read_bytes() != data


def test_a_fault_waits_for_its_request(api: HfApi, server: Hub) -> None:
    server.fail("500", "info", match="lab/other", after=1)
    api.model_info(REPO)
    assert len(server.faults) == 1
    api.create_repo("lab/other")
    api.model_info("lab/other")
    with pytest.raises(HfHubHTTPError):
        api.model_info("lab/other")
    api.model_info("lab/other")
    server.fail("500", method="DELETE")
    with pytest.raises(HfHubHTTPError):
        api.delete_repo("lab/other")


def test_chance_is_the_same_for_the_same_seed(api: HfApi, server: Hub) -> None:
    def drawn(seed: int) -> list[str | None]:
        chance = Chance(seed, {"commit": 0.5, "*": 0.0}, ("503", "drop"))
        return [fault and f"{fault.kind} {fault.effect}" for fault in (chance.draw("commit") for _ in range(200))]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 70 < sum(fault is not None for fault in drawn(1)) < 130
    assert {*drawn(1)} == {None, "503 True", "503 False", "drop True", "drop False"}
    faults = Faults()
    faults.chance = Chance(1, {"commit": 1.0})
    assert faults.next("info", "GET", "/") is None
    server.fail_by_chance(3, {"info": 1.0}, kinds=["503"])
    with pytest.raises(HfHubHTTPError):
        api.model_info(REPO)
    server.heal()
    api.model_info(REPO)


def test_a_fault_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"expected a status or one of drop, slow, .*; found 'dorp'"):
        Fault("dorp")
