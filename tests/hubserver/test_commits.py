"""Commits: what they hold, what they refuse."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from tests.hubserver.making import REPO, WEIGHTS, add, commit
from tests.hubserver.running import Hub


def content(api: HfApi, path: str, revision: str | None = None) -> bytes:
    return Path(api.hf_hub_download(REPO, path, revision=revision)).read_bytes()


def test_a_commit_holds_small_and_large_files(api: HfApi, server: Hub) -> None:
    made = commit(api, {"config.json": b"{}", "w.safetensors": WEIGHTS, "empty.bin": b"", "photo": b"\x89PNG"})
    assert made.commit_url == f"{server.url}/{REPO}/commit/{made.oid}"
    assert made.oid == api.model_info(REPO).sha
    rows = {row.rfilename: row for row in api.model_info(REPO, files_metadata=True).siblings or []}
    assert {path for path, row in rows.items() if row.lfs} == {"w.safetensors", "photo"}
    assert content(api, "config.json") == b"{}"
    assert content(api, "w.safetensors") == WEIGHTS
    assert {row["received"] for row in server.asked("lfs_put")} == {len(WEIGHTS), 4}


def test_nothing_is_uploaded_twice(api: HfApi, server: Hub) -> None:
    first = commit(api, {"a.txt": b"1", "w.bin": WEIGHTS})
    assert commit(api, {"a.txt": b"1", "w.bin": WEIGHTS}).oid == first.oid
    commit(api, {"other.bin": WEIGHTS})
    assert (len(server.asked("commit")), len(server.asked("lfs_put"))) == (2, 1)


def test_a_commit_on_an_old_parent_is_refused(api: HfApi) -> None:
    first = commit(api, {"a.txt": b"1"})
    commit(api, {"a.txt": b"2"}, parent_commit=first.oid)
    with pytest.raises(HfHubHTTPError, match="The branch was updated since you opened this page") as error:
        commit(api, {"a.txt": b"3"}, parent_commit=first.oid)
    assert error.value.response.status_code == 412
    assert content(api, "a.txt") == b"2"


def test_files_are_copied_and_deleted(api: HfApi) -> None:
    first = commit(api, {"a.txt": b"1", "w.bin": WEIGHTS, "d/x.txt": b"x", "d/e/y.txt": b"y"})
    copies = [CommitOperationCopy("w.bin", "v.bin"), CommitOperationCopy("a.txt", "b.txt", src_revision=first.oid)]
    deletions = [CommitOperationDelete("a.txt"), CommitOperationDelete("d/")]
    api.create_commit(REPO, [*copies, *deletions], commit_message="moved")
    assert api.list_repo_files(REPO) == [".gitattributes", "b.txt", "v.bin", "w.bin"]
    assert content(api, "v.bin") == WEIGHTS
    with pytest.raises(EntryNotFoundError):
        content(api, "a.txt")
    assert content(api, "a.txt", first.oid) == b"1"
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit(REPO, [CommitOperationDelete("a.txt")], commit_message="again")


def test_what_is_left_out_is_not_committed(api: HfApi) -> None:
    commit(api, {".gitignore": b"*.log\n"})
    commit(api, {"a.log": b"1", "a.txt": b"1"})
    assert api.list_repo_files(REPO) == [".gitattributes", ".gitignore", "a.txt"]


@pytest.mark.parametrize("path", ["a/.git/b", "../a", "a.txt/b"])
def test_paths_that_cannot_be(path: str, api: HfApi) -> None:
    commit(api, {"a.txt": b"1"})
    operation = CommitOperationAdd("fine", b"2")
    operation.path_in_repo = path  # past the client's own check
    with pytest.raises(HfHubHTTPError):
        api.create_commit(REPO, [operation], commit_message="bad")
    assert api.list_repo_files(REPO) == [".gitattributes", "a.txt"]


def test_a_large_file_that_was_not_uploaded_is_refused(api: HfApi, server: Hub) -> None:
    operations = add({"w.bin": WEIGHTS})
    api.preupload_lfs_files(REPO, operations)
    sha256 = operations[0].upload_info.sha256.hex()
    (server.root / "models" / REPO / "lfs" / sha256).unlink()
    with pytest.raises(HfHubHTTPError, match="an LFS pointer pointed to a file that does not exist"):
        api.create_commit(REPO, operations, commit_message="w")


def test_a_folder_and_a_pull_request(api: HfApi, tmp_path: Path) -> None:
    (tmp_path / "run" / "curves").mkdir(parents=True)
    (tmp_path / "run" / "curves" / "loss.csv").write_text("1")
    (tmp_path / "run" / "w.bin").write_bytes(WEIGHTS)
    api.upload_folder(repo_id=REPO, folder_path=tmp_path / "run")
    assert api.list_repo_files(REPO) == [".gitattributes", "curves/loss.csv", "w.bin"]
    made = api.create_commit(REPO, add({"b.txt": b"1"}), commit_message="proposed", create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert "b.txt" in api.list_repo_files(REPO, revision="refs/pr/1")
    assert "b.txt" not in api.list_repo_files(REPO)
    assert [row.ref for row in api.list_repo_refs(REPO, include_pull_requests=True).pull_requests or []] == [
        "refs/pr/1"
    ]


def test_two_repositories_with_one_content_have_one_commit_id(api: HfApi) -> None:
    api.create_repo("lab/twin")
    made = commit(api, {"a.txt": b"1"})
    twin = api.create_commit("lab/twin", add({"a.txt": b"1"}), commit_message="step")
    assert twin.oid == made.oid
