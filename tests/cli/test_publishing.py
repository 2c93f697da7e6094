"""Publishing from the command line, and finding a label that serves other weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.running import Prisma, one_sentence

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


def test_publishing_to_the_hub_itself_is_refused_in_a_sentence(prisma: Prisma) -> None:
    for command in (["publish", "run", "lab/tiny"], ["audit", "lab/tiny"]):
        code, _, err = prisma(*command)
        assert code == 1
        assert "expected --hub DIR" in one_sentence(err)
