"""Spaces."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.hubserver.running import Hub

SPACE = "lab/space"
CARD = b"---\nsdk: gradio\n---\n"


def made(server: Hub, sdk: str) -> HfApi:
    server.api.create_repo(SPACE, repo_type="space", space_sdk=sdk)
    return server.api


def upload(api: HfApi, data: bytes = CARD) -> None:
    api.upload_file(path_or_fileobj=data, path_in_repo="README.md", repo_id=SPACE, repo_type="space")


def test_a_free_account_pays_for_gradio(server: Hub) -> None:
    with pytest.raises(
        HfHubHTTPError, match="A PRO subscription is required to host Gradio Spaces on cpu-basic"
    ) as error:
        server.api.create_repo(SPACE, repo_type="space", space_sdk="gradio", exist_ok=True)
    assert error.value.response.status_code == 402
    made(server, "static")
    server.api.create_repo(SPACE, repo_type="space", space_sdk="gradio", exist_ok=True)  # it is there already
    for number in range(2):
        server.api.create_repo(f"lab/z{number}", repo_type="space", space_sdk="gradio", space_hardware="zero-a10g")
    with pytest.raises(HfHubHTTPError) as error:
        server.api.create_repo("lab/z2", repo_type="space", space_sdk="gradio", space_hardware="zero-a10g")
    assert error.value.response.status_code == 402


def test_a_space_is_built_and_runs(server: Hub) -> None:
    server.change(pro=True, polls=2)
    api = made(server, "gradio")
    assert api.get_space_runtime(SPACE).stage == "NO_APP_FILE"
    upload(api)
    assert [str(api.get_space_runtime(SPACE).stage) for _ in range(3)] == ["BUILDING", "BUILDING", "RUNNING"]
    assert api.restart_space(SPACE).stage == "BUILDING"
    server.change(outcome="BUILD_ERROR", polls=0)
    assert api.wait_for_space(SPACE).stage == "BUILD_ERROR"
    assert api.pause_space(SPACE).stage == "PAUSED"
    assert api.request_space_hardware(SPACE, "t4-small").requested_hardware == "t4-small"
    assert api.set_space_sleep_time(SPACE, 300).sleep_time == 300


def test_a_static_space_runs_at_once(server: Hub) -> None:
    server.change(space_host="http://127.0.0.1:7")
    api = made(server, "static")
    upload(api, CARD.replace(b"gradio", b"static"))
    assert api.get_space_runtime(SPACE).stage == "RUNNING"
    assert (api.space_info(SPACE).sdk, api.space_info(SPACE).host) == ("static", "http://127.0.0.1:7")
    with pytest.raises(BadRequestError, match="Static Spaces are always running"):
        api.restart_space(SPACE)
    with pytest.raises(HfHubHTTPError) as error:
        api.request_space_hardware(SPACE, "t4-small")
    assert error.value.response.status_code == 402


def test_a_secret_is_told_to_nobody(server: Hub) -> None:
    api = made(server, "static")
    api.add_space_secret(SPACE, "KEY", "do not tell", description="what for")
    api.add_space_variable(SPACE, "MODEL", "lab/mouse")
    assert {key: row.description for key, row in api.get_space_secrets(SPACE).items()} == {"KEY": "what for"}
    assert {key: row.value for key, row in api.get_space_variables(SPACE).items()} == {"MODEL": "lab/mouse"}
    api.delete_space_secret(SPACE, "KEY")
    assert api.get_space_secrets(SPACE) == {}
    api.delete_space_variable(SPACE, "MODEL")
    assert api.get_space_variables(SPACE) == {}
    assert not any(b"do not tell" in path.read_bytes() for path in server.root.rglob("*") if path.is_file())
