"""Branches, tags, history."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RevisionNotFoundError

from tests.hubserver.making import REPO, commit
from tests.hubserver.running import Hub


def targets(api: HfApi) -> tuple[dict[str, str], dict[str, str]]:
    found = api.list_repo_refs(REPO)
    return tuple({row.name: row.target_commit for row in rows} for rows in (found.branches, found.tags))  # type: ignore[return-value]


def test_a_branch_is_a_label_of_any_commit(api: HfApi) -> None:
    first = commit(api, {"a.txt": b"1"}).oid
    second = commit(api, {"a.txt": b"2"}).oid
    api.create_branch(REPO, branch="step/1", revision=first)
    api.create_branch(REPO, branch="head")
    api.create_branch(REPO, branch="copy", revision="step/1")
    assert targets(api)[0] == {"main": second, "step/1": first, "head": second, "copy": first}
    third = commit(api, {"a.txt": b"3"}, revision="step/1", parent_commit=first).oid
    assert targets(api)[0] == {"main": second, "step/1": third, "head": second, "copy": first}
    with pytest.raises(HfHubHTTPError, match="Reference refs/heads/copy already exists") as error:
        api.create_branch(REPO, branch="copy")
    assert error.value.response.status_code == 409
    api.create_branch(REPO, branch="copy", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(REPO, branch="x", revision="f" * 40)
    for name in ("refs/heads/x", "a..b", "-a", "a b", "a/", "x" * 201):
        with pytest.raises(BadRequestError, match="Invalid reference for a branch"):
            api.create_branch(REPO, branch=name)


def test_branches_grow_at_the_same_time(api: HfApi) -> None:
    names = [f"step/{number}" for number in range(8)]
    for name in names:
        api.create_branch(REPO, branch=name)

    def grow(name: str) -> str:
        commit(api, {"w.bin": b"\0" + name.encode()}, revision=name)
        return commit(api, {"name.txt": name.encode()}, revision=name).oid

    with ThreadPoolExecutor(8) as pool:
        made = dict(zip(names, pool.map(grow, names), strict=True))
    assert {name: oid for name, oid in targets(api)[0].items() if name != "main"} == made
    assert len(api.list_repo_commits(REPO, revision="step/7")) == 3


def test_a_branch_is_deleted(api: HfApi) -> None:
    api.create_branch(REPO, branch="a/b")
    api.delete_branch(REPO, branch="a/b")
    assert set(targets(api)[0]) == {"main"}
    with pytest.raises(HfHubHTTPError, match="Reference does not exist"):
        api.delete_branch(REPO, branch="a/b")
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main"):
        api.delete_branch(REPO, branch="main")


def test_tags(api: HfApi) -> None:
    first = commit(api, {"a.txt": b"1"}).oid
    commit(api, {"a.txt": b"2"})
    api.create_tag(REPO, tag="v1", revision=first)
    assert targets(api)[1] == {"v1": first}
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag(REPO, tag="v1")
    assert error.value.response.status_code == 409
    api.create_tag(REPO, tag="v1", exist_ok=True)
    with pytest.raises(BadRequestError):
        commit(api, {"a.txt": b"3"}, revision="v1")  # a tag does not move
    api.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(REPO, tag="v2", revision="none")


def test_the_history_comes_in_pages(api: HfApi, server: Hub) -> None:
    for number in range(5):
        commit(api, {"a.txt": str(number).encode()}, f"step {number}")
    server.change(commits_page=2)
    titles = [row.title for row in api.list_repo_commits(REPO)]
    assert titles == [*(f"step {number}" for number in reversed(range(5))), "initial commit"]
    assert len(server.asked("commits")) == 3


def test_a_squashed_branch_has_one_commit(api: HfApi) -> None:
    for number in range(3):
        commit(api, {f"{number}.txt": b"1"})
    api.super_squash_history(REPO, commit_message="all")
    assert [row.title for row in api.list_repo_commits(REPO)] == ["all"]
    assert api.list_repo_files(REPO) == [".gitattributes", "0.txt", "1.txt", "2.txt"]
