"""Rate limits."""

import pytest
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers

from tests.hubserver.making import REPO, commit
from tests.hubserver.running import Hub


def test_requests_in_a_window_are_counted(api: HfApi, server: Hub) -> None:
    server.change(api_requests=3, window=100)
    for left in (2, 1, 0):
        found = get_session().get(f"{server.url}/api/whoami-v2", headers={"Authorization": f"Bearer {server.token}"})
        info = parse_ratelimit_headers(found.headers)
        assert info is not None
        assert (info.resource_type, info.remaining, info.limit, info.window_seconds) == ("api", left, 3, 100)
        assert 98 <= info.reset_in_seconds <= 100
    with pytest.raises(HfHubHTTPError, match="you have reached your 'api' rate limit") as error:
        api.model_info(REPO)
    assert error.value.response.status_code == 429
    assert error.value.response.headers["Retry-After"] == str(
        parse_ratelimit_headers(error.value.response.headers).reset_in_seconds
    )
    HfApi(endpoint=server.url, token=False).repo_exists("lab/none")  # another account
    server.advance(100)
    assert api.model_info(REPO).id == REPO


def test_downloads_are_counted_apart(api: HfApi, server: Hub, sleeps: list[float]) -> None:
    commit(api, {"a.txt": b"1"})
    server.change(api_requests=1000, resolver_requests=1)
    api.get_hf_file_metadata(url=f"{server.url}/{REPO}/resolve/main/a.txt", token=server.token)
    with pytest.raises(HfHubHTTPError, match="'resolvers' rate limit"):
        api.get_hf_file_metadata(url=f"{server.url}/{REPO}/resolve/main/a.txt", token=server.token)
    api.model_info(REPO)


def test_commits_of_an_hour_are_counted(api: HfApi, server: Hub) -> None:
    server.change(commits=2, api_requests=1000)
    for number in range(2):
        commit(api, {"a.txt": str(number).encode()})
    with pytest.raises(HfHubHTTPError, match=r"repository commits \(2 per hour\). Retry in about 1 hour") as error:
        commit(api, {"a.txt": b"x"})
    info = parse_ratelimit_headers(error.value.response.headers)
    assert (error.value.response.status_code, info is not None and info.remaining > 900) == (429, True)
    server.advance(3600)
    commit(api, {"a.txt": b"x"})
