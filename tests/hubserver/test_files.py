"""Listings and downloads."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.hubserver.making import REPO, WEIGHTS, commit
from tests.hubserver.objects import blob_id, pointer
from tests.hubserver.running import Hub


def test_a_listing_comes_in_pages(api: HfApi, server: Hub) -> None:
    commit(api, {f"d/{number:02}.txt": str(number).encode() for number in range(25)})
    server.change(page=10, expanded_page=4)
    listed = list(api.list_repo_tree(REPO, recursive=True))
    assert [row.path for row in listed] == [".gitattributes", "d", *(f"d/{number:02}.txt" for number in range(25))]
    assert len(server.asked("tree")) == 3
    expanded = list(api.list_repo_tree(REPO, "d", expand=True))
    assert len(server.asked("tree")) == 3 + 7
    assert {row.last_commit.oid for row in expanded} == {api.model_info(REPO).sha}
    assert [type(row) for row in api.list_repo_tree(REPO)] == [RepoFile, RepoFolder]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "none"))


def test_a_row_says_what_is_there(api: HfApi) -> None:
    first = commit(api, {"a.txt": b"1", "d/w.bin": WEIGHTS})
    commit(api, {"b.txt": b"2"})
    small, large, folder = api.get_paths_info(REPO, ["a.txt", "d/w.bin", "d", "none"], expand=True)
    assert (small.blob_id, small.size, small.lfs) == (blob_id(b"1"), 1, None)
    sha256 = large.lfs.sha256
    assert (large.size, large.lfs.size) == (len(WEIGHTS), len(WEIGHTS))
    assert large.blob_id == blob_id(pointer(sha256, len(WEIGHTS)))
    assert large.lfs.pointer_size == len(pointer(sha256, len(WEIGHTS)))
    assert small.last_commit.oid == first.oid
    assert isinstance(folder, RepoFolder)


def test_a_large_file_comes_from_the_storage_without_the_token(api: HfApi, server: Hub) -> None:
    commit(api, {"w.bin": WEIGHTS})
    api.create_branch(REPO, branch="step/1")
    server.forget()
    assert Path(api.hf_hub_download(REPO, "w.bin", revision="step/1")).read_bytes() == WEIGHTS
    head, get = server.asked("resolve")[0], server.asked("lfs_get")[0]
    assert (head["status"], head["authorized"], head["path"]) == (302, True, f"/{REPO}/resolve/step%2F1/w.bin")
    assert (get["status"], get["origin"], get["authorized"], get["sent"]) == (200, "storage", False, len(WEIGHTS))


def test_a_part_of_a_file(api: HfApi, server: Hub) -> None:
    commit(api, {"w.bin": WEIGHTS, "a.txt": b"0123456789"})
    for path, data in (("w.bin", WEIGHTS), ("a.txt", b"0123456789")):
        headers = {"Authorization": f"Bearer {server.token}", "Range": "bytes=2-5"}
        found = get_session().get(f"{server.url}/{REPO}/resolve/main/{path}", headers=headers, follow_redirects=True)
        assert (found.status_code, found.content) == (206, data[2:6])
        assert found.headers["Content-Range"] == f"bytes 2-5/{len(data)}"


def test_the_storage_takes_signed_addresses_and_no_token(api: HfApi, server: Hub) -> None:
    commit(api, {"w.bin": WEIGHTS})
    headers = {"Authorization": f"Bearer {server.token}"}
    found = get_session().head(f"{server.url}/{REPO}/resolve/main/w.bin", headers=headers, follow_redirects=False)
    address = found.headers["Location"]
    assert get_session().get(address).content == WEIGHTS
    assert get_session().get(address.partition("?")[0]).status_code == 403
    assert get_session().get(address, headers=headers).status_code == 400
    server.forget()  # that one was on purpose


def test_a_snapshot_of_a_branch(api: HfApi) -> None:
    commit(api, {"a.txt": b"1", "d/w.bin": WEIGHTS})
    api.create_branch(REPO, branch="step-1")
    commit(api, {"a.txt": b"2"})
    folder = Path(api.snapshot_download(REPO, revision="step-1"))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        ".gitattributes",
        "a.txt",
        "d/w.bin",
    }
    assert (folder / "a.txt").read_text() == "1"
    assert (Path(api.snapshot_download(REPO)) / "a.txt").read_text() == "2"
    assert api.verify_repo_checksums(REPO, revision="step-1").mismatches == []


def test_what_is_not_there(api: HfApi) -> None:
    with pytest.raises(EntryNotFoundError) as error:
        api.hf_hub_download(REPO, "none.txt")
    assert error.value.response.headers["X-Repo-Commit"] == api.model_info(REPO).sha
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(REPO, "none.txt", revision="none")
