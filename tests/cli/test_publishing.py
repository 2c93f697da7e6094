"""Publishing from the command line, and finding a label that serves other weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.running import Prisma
from tests.hubserver.running import Hub, use

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


def test_audits_print_a_list_for_scripts(prisma: Prisma, mistake: Callable[..., str], hub: Path) -> None:
    assert json.loads(prisma("audit", "lab/tiny", "--hub", str(hub), "--json")[1]) == []
    (hub / "models--lab--tiny/refs/step-000002").unlink()
    code, out, _ = prisma("audit", "lab/tiny", "--hub", str(hub), "--json", "--deep")
    problem = "expected a label for this step of the manifest; found none"
    assert (code, json.loads(out)) == (1, [{"revision": "step-000002", "problem": problem}])
    code, out, _ = prisma("audit", "lab/t*", "--hub", str(hub))
    assert code == 1
    assert out.splitlines()[1].split(maxsplit=1) == ["step-000002", problem]
    assert "whose names begin as lab/x*" in mistake("audit", "lab/x*", "--hub", str(hub))


def test_the_hub_itself_is_audited(
    prisma: Prisma, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run, tmp_path / "sent")
    with Hub(tmp_path / "root") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        assert prisma("publish", str(tmp_path / "sent"), "lab/tiny", "--json")[0] == 0
        assert prisma("audit", "lab/tiny", "--json")[:2] == (0, "[]\n")
        server.api.create_branch("lab/tiny", branch="step-000003", revision="main")
        code, out, _ = prisma("audit", "lab/tiny", "--json")
        assert code == 1
        assert {finding["revision"] for finding in json.loads(out)} == {"step-000003"}
