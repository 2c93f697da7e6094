"""Publishing from the command line, and finding a label that serves other weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.running import Prisma, one_sentence
from tests.hubserver.running import Hub

SMALL = ("--set", "steps=3", "--set", "warmup=1", "--set", "d_model=8", "--set", "n_heads=2", "--set", "d_mlp=8")


def test_train_publish_audit_and_back(prisma: Prisma, tmp_path: Path) -> None:
    code, out, err = prisma("train", "digits", *SMALL, "--json")
    assert code == 0, err
    assert json.loads(out)["results"]
    code, out, err = prisma("publish", "runs/digits", "lab/tiny", "--hub", "hub", "--json")
    assert code == 0, err
    assert json.loads(out)["changed"] is True
    assert "up to date" in prisma("publish", "runs/digits", "lab/tiny", "--hub", "hub")[1]
    code, out, err = prisma("audit", "lab/tiny", "--hub", "hub")
    assert code == 0, err
    assert "lab/tiny: 4 checkpoints" in out  # steps 0, 1, 2 and the last
    blob = next(p for p in (tmp_path / "hub").rglob("step-000002") if p.is_file())
    assert blob.parent.name == "refs"
    blob.write_text((blob.parent / "step-000001").read_text())
    code, out, _ = prisma("audit", "lab/tiny", "--hub", "hub")
    assert code == 1
    assert "step-000002" in out


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["publish", "absent", "lab/tiny", "--hub", "hub"], "absent", "run"),
        (["publish", "full", "lab/tiny", "--hub", "hub"], "full", "run"),
        (["publish", "full", "not a name", "--hub", "hub"], "OWNER/NAME", "not a name"),
        (["audit", "lab/tiny", "--hub", "absent"], "folder hub", "absent"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str, found: str) -> None:
    err = mistake(*command)
    assert expected in err
    assert found in err


def test_a_run_is_compared_watched_and_taken_back(prisma: Prisma, run: Path, hub: Path) -> None:
    where = ("lab/tiny", "--hub", str(hub))
    code, out, err = prisma("diff", str(run), *where)
    assert (code, out.strip()) == (0, "lab/tiny serves this run."), err
    code, out, _ = prisma("diff", str(run), "lab/other", "--hub", str(hub), "--json")
    assert code == 1
    assert json.loads(out)[-1] == {"revision": "main", "file": "", "found": "not published"}
    code, out, err = prisma("publish", str(run), "lab/other", "--hub", str(hub), "--watch", "--json")
    assert code == 0, err
    assert json.loads(out)["changed"] is True
    code, out, err = prisma("yank", "lab/tiny", "step-000002", "--why", "a wrong label", "--hub", str(hub))
    assert code == 0, err
    assert "its weights are kept as yanked-step-000002" in out
    code, out, _ = prisma("yank", "lab/tiny", "step-000002", "--why", "a wrong label", "--hub", str(hub), "--json")
    assert (code, json.loads(out)["changed"]) == (0, False)
    assert "step-000003" in one_sentence(prisma("yank", "lab/tiny", "step-000003", "--why", "x", "--hub", str(hub))[2])


def test_the_hub_itself_is_where_a_run_goes_without_a_folder(prisma: Prisma, run: Path, server: Hub) -> None:
    code, out, err = prisma("publish", str(run), "lab/tiny", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert {"repo", "commit", "revisions", "requests", "bytes"} <= report.keys()
    assert (report["repo"], report["changed"], report["hub"]) == ("lab/tiny", True, server.url)
    assert server.token not in out + err
    assert json.loads(prisma("publish", str(run), "lab/tiny", "--json")[1])["changed"] is False
    assert prisma("diff", str(run), "lab/tiny")[0] == 0
    assert server.api.model_info("lab/tiny").private
    assert json.loads(prisma("publish", str(run), "lab/tiny", "--public", "--json")[1])["changed"] is True
    assert not server.api.model_info("lab/tiny").private
