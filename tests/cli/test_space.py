"""`prisma space` from the command line. What it makes is tested in `tests/publish/space`."""

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from prisma.publish.space import sending
from tests.cli.running import Prisma, one_sentence
from tests.publish.space.fake_hub import FakeHub, refusal


def test_a_folder_is_written_once(prisma: Prisma, finished_hub: Path, tmp_path: Path) -> None:
    command = ("space", "lab/explorer", "--hub", str(finished_hub), "--models", "lab/tiny", "--out", "space", "--json")
    code, out, err = prisma(*command)
    assert code == 0, err
    report = json.loads(out)
    assert (report["space"], report["sdk"], report["changed"]) == ("lab/explorer", "gradio", True)
    files = [path for path in (tmp_path / "space").rglob("*") if path.is_file()]
    assert report["files"] == len(files)
    assert report["bytes"] == sum(path.stat().st_size for path in files)
    assert json.loads(prisma(*command)[1])["changed"] is False


def test_a_dry_run_writes_and_sends_nothing(prisma: Prisma, finished_hub: Path, tmp_path: Path) -> None:
    code, out, err = prisma("space", "lab/explorer", "--hub", str(finished_hub), "--dry-run")
    assert code == 0, err
    assert "Would send the gradio Space lab/explorer with" in out
    assert not (tmp_path / "space").exists()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(sending, "expect_answers", lambda *_: None)
    return hub


def test_a_space_is_made_and_reported(prisma: Prisma, finished_hub: Path, fake: FakeHub) -> None:
    command = ("space", "lab/explorer", "--hub", str(finished_hub), "--public", "--json")
    code, out, err = prisma(*command)
    assert code == 0, err
    assert json.loads(out) == {
        "space": "lab/explorer",
        "url": "https://hub.test/spaces/lab/explorer",
        "app": "http://127.0.0.1:1",
        "commit": fake.head,
        "changed": True,
        "stage": "RUNNING",
        "private": False,
    }
    assert json.loads(prisma(*command)[1])["changed"] is False
    assert "The public Space lab/explorer is up to date, runs" in prisma(*command[:-1])[1]


def test_a_free_account_is_told_what_works(prisma: Prisma, finished_hub: Path, fake: FakeHub) -> None:
    fake.refuses["create_repo"] = refusal(402)
    code, out, err = prisma("space", "lab/explorer", "--hub", str(finished_hub))
    assert (code, out) == (1, "")
    assert "free accounts cannot host a Gradio Space on cpu-basic" in one_sentence(err) and "--static" in err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["space", "lab/x"], "expected the names of published mice, as in --models OWNER/NAME; found none"),
        (["space", "x", "--hub", "full"], "which has no owner"),
        (["space", "lab/x", "--hub", "absent"], "expected a folder hub at absent"),
        (["space", "lab/x", "--hub", "full", "--hardware", "nonsense"], "huggingface_hub); found 'nonsense'"),
        (
            ["space", "lab/x", "--hub", "full", "--hardware", "T4-small"],
            "expected hardware that the Hub has (cpu-basic, ",
        ),
        (["space", "lab/x", "--hub", "full", "--models", "lab/tiny"], "lab/tiny is not published in the hub full"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str) -> None:
    assert expected in mistake(*command)
