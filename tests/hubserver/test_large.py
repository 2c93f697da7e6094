"""Uploads of large files."""

import hashlib
import socket

import pytest
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError

from tests.hubserver.making import REPO, WEIGHTS, add, commit
from tests.hubserver.running import Hub


def test_a_file_is_uploaded_in_parts(api: HfApi, server: Hub) -> None:
    server.change(multipart=1000, part=600)
    commit(api, {"w.bin": WEIGHTS})
    assert [row["received"] for row in server.asked("lfs_part")] == [600, 600, 600, len(WEIGHTS) - 1800]
    assert [row["authorized"] for row in server.asked("lfs_complete")] == [False]
    assert api.get_paths_info(REPO, "w.bin")[0].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert list((server.root / "uploads").iterdir()) == []


def test_bytes_that_are_not_what_was_announced_are_refused(api: HfApi, server: Hub) -> None:
    operations = add({"w.bin": WEIGHTS})
    operations[0].upload_info.sha256 = hashlib.sha256(b"other").digest()
    with pytest.raises((HfHubHTTPError, RuntimeError)) as error:
        api.create_commit(REPO, operations, commit_message="w")
    assert "BadDigest" in f"{error.value} {error.value.__cause__}"
    assert list((server.root / "uploads").iterdir()) == []


def test_a_client_that_dies_leaves_nothing(api: HfApi, server: Hub) -> None:
    batch = {"objects": [{"oid": "ab" * 32, "size": 100}]}
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = get_session().post(f"{server.url}/{REPO}.git/info/lfs/objects/batch", json=batch, headers=headers)
    origin, _, path = answer.json()["objects"][0]["actions"]["upload"]["href"].removeprefix("http://").partition("/")
    host, port = origin.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"PUT /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\nhalf".encode())
    while not any(row["received"] for row in server.asked("lfs_put")):
        pass
    assert [(row["status"], row["received"]) for row in server.asked("lfs_put")] == [(0, 4)]
    assert list((server.root / "uploads").iterdir()) == []


def test_large_files_belong_to_their_repository(api: HfApi, server: Hub) -> None:
    commit(api, {"w.bin": WEIGHTS})
    api.create_repo("lab/other")
    api.create_commit("lab/other", add({"w.bin": WEIGHTS}), commit_message="w")
    assert len(server.asked("lfs_put")) == 2
