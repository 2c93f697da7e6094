"""Repositories and who may see them."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.hubserver.making import REPO, commit
from tests.hubserver.running import Hub


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_the_token_says_who_the_user_is(server: Hub) -> None:
    found = server.api.whoami()
    assert (found["name"], found["isPro"], found["auth"]["accessToken"]["role"]) == ("tester", False, "write")
    server.change(user="ada", pro=True)
    assert (server.api.whoami()["name"], server.api.whoami()["isPro"]) == ("ada", True)
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=server.url, token="hf_other").whoami()
    assert status(error) == 401


def test_a_repository_is_made_once(server: Hub) -> None:
    api = server.api
    made = api.create_repo(REPO, private=True)
    assert (str(made), made.repo_id) == (f"{server.url}/{REPO}", REPO)
    assert api.create_repo("mine").repo_id == "tester/mine"
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as error:
        api.create_repo(REPO)
    assert status(error) == 409
    assert error.value.response.json()["url"] == made
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    info = api.model_info(REPO, files_metadata=True)
    assert info.private
    assert [row.rfilename for row in info.siblings or []] == [".gitattributes"]
    history = api.list_repo_commits(REPO)
    assert [row.title for row in history] == ["initial commit"]
    assert info.sha == history[0].commit_id


def test_a_private_repository_is_not_there_for_others(api: HfApi, server: Hub) -> None:
    commit(api, {"a.txt": b"1"})
    nobody = HfApi(endpoint=server.url, token=False)
    with pytest.raises(RepositoryNotFoundError) as error:
        nobody.model_info(REPO)
    assert status(error) == 401
    with pytest.raises(RepositoryNotFoundError) as error:
        api.model_info("lab/none")
    assert status(error) == 404
    with pytest.raises(RepositoryNotFoundError):
        nobody.hf_hub_download(REPO, "a.txt")
    api.update_repo_settings(REPO, private=False)
    assert nobody.model_info(REPO).private is False
    api.update_repo_settings(REPO, gated="auto")
    with pytest.raises(GatedRepoError):
        nobody.hf_hub_download(REPO, "a.txt")
    with pytest.raises(HfHubHTTPError) as error:
        nobody.create_tag(REPO, tag="x")
    assert status(error) == 401


def test_who_may_not_write_is_told_so(server: Hub) -> None:
    server.change(foreign=["others"])
    with pytest.raises(HfHubHTTPError, match='namespace "others"') as error:
        server.api.create_repo("others/mouse")
    assert status(error) == 403
    server.change(role="read")
    with pytest.raises(HfHubHTTPError) as error:
        server.api.create_repo(REPO)
    assert status(error) == 403


def test_a_repository_is_moved_and_deleted(api: HfApi) -> None:
    commit(api, {"a.txt": b"1", "b.bin": b"\0"})
    api.move_repo(REPO, "lab/moved")
    assert api.list_repo_files("lab/moved") == [".gitattributes", "a.txt", "b.bin"]
    assert not api.repo_exists(REPO)
    api.delete_repo("lab/moved")
    api.delete_repo("lab/moved", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("lab/moved")
    api.auth_check(api.create_repo("lab/new").repo_id, write=True)


def test_kinds_have_names_of_their_own(server: Hub) -> None:
    api = server.api
    for kind in ("model", "dataset"):
        api.create_repo(REPO, repo_type=kind)
        api.upload_file(path_or_fileobj=b"\0" + kind.encode(), path_in_repo="a.bin", repo_id=REPO, repo_type=kind)
    for kind in ("model", "dataset"):
        path = api.hf_hub_download(REPO, "a.bin", repo_type=kind)
        assert path.endswith("a.bin")
        with open(path, "rb") as file:  # noqa: PTH123
            assert file.read() == b"\0" + kind.encode()
