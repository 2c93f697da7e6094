"""The server: its start, its end, what it keeps."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.hubserver.making import REPO, WEIGHTS, commit
from tests.hubserver.running import HERE, TOKEN, Hub, use


@pytest.mark.parametrize("process", [False, True])
def test_a_restart_keeps_everything(process: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(tmp_path / "root", process=process, pro=True) as hub:
        use(monkeypatch, hub.url, tmp_path / "cache")
        api, url = hub.api, hub.url
        api.create_repo(REPO, private=True)
        made = commit(api, {"a.txt": b"1", "w.bin": WEIGHTS})
        api.create_branch(REPO, branch="step/1", revision=made.oid)
        api.create_tag(REPO, tag="v1")
        api.create_repo(
            "lab/space", repo_type="space", space_sdk="gradio", space_variables=[{"key": "A", "value": "1"}]
        )
        before = (api.list_repo_refs(REPO), api.list_repo_commits(REPO), api.model_info(REPO, files_metadata=True))
        hub.restart()
        assert hub.url == url
        assert before == (
            api.list_repo_refs(REPO),
            api.list_repo_commits(REPO),
            api.model_info(REPO, files_metadata=True),
        )
        assert Path(api.hf_hub_download(REPO, "w.bin", revision="step/1")).read_bytes() == WEIGHTS
        assert api.get_space_variables("lab/space")["A"].value == "1"
        assert api.whoami()["isPro"]  # settings are given again
        assert hub.asked("unrouted") == []


def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hubserver", "--root", str(tmp_path), "--port", "0", "--token", TOKEN]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        assert time.monotonic() - began < 20  # less than one, on a machine that does nothing else
        os.kill(server.pid, signal.SIGTERM)
        os.kill(server.pid, signal.SIGTERM)
        rest, errors = server.communicate(timeout=30)
    assert (server.returncode, rest, errors) == (0, "", "")


def test_what_it_does_not_know_is_not_there_and_is_written_down(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        request = urllib.request.Request(
            f"{hub.url}/api/nothing?token=hf_x", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        error.value.close()
        log = hub.requests
        assert [(row["route"], row["path"], row["status"]) for row in log] == [("unrouted", "/api/nothing", 404)]
        assert "hf_" not in str(log)
        for data, message in (({"nonsense": 1}, "settings"), ({"pro": True}, "")):
            if message:
                with pytest.raises(urllib.error.HTTPError) as error:
                    hub.change(**data)
                error.value.close()
            else:
                hub.change(**data)
        hub.forget()
        assert hub.requests == []
