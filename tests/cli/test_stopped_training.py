"""A `prisma train` that a signal stops: its exit status, its advice, and that the advice leads to the same bits."""

import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.run_folder import is_finished
from prisma.train import train
from tests import processes
from tests.cli.commands import command
from tests.cli.running import Prisma
from tests.conftest import SMALL
from tests.run_edits import timeless

LONG = {**SMALL, "steps": "60"}
SETTINGS = [word for name, value in LONG.items() for word in ("--set", f"{name}={value}")]
WRITTEN = ("model.safetensors", "metrics.jsonl", "state.safetensors", "results.json", "hashes.json", "recipe.json")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hash of every file of the run that nobody stops."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(recipe("digits").override(LONG), out, command=shlex.join(["prisma", "train", "digits", *SETTINGS]))
    return {name: timeless(out / name) for name in WRITTEN}


@pytest.mark.parametrize(
    ("number", "status", "lines"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 20), (signal.SIGHUP, 129, 61)]
)
def test_it_is_resumed_by_the_command_that_it_says(
    prisma: Prisma, uninterrupted: dict[str, str], tmp_path: Path, number: int, status: int, lines: int
) -> None:
    """In its first steps, in the middle, and while the curves are drawn."""
    out, log = tmp_path / "a run", tmp_path / "a run" / "metrics.jsonl"
    child = processes.context().Process(
        target=command, args=(["train", "digits", *SETTINGS, "--out", str(out)], tmp_path / "stderr")
    )
    child.start()
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        assert child.is_alive() and time.monotonic() < deadline, (tmp_path / "stderr").read_text()
        time.sleep(0.001)
    assert child.pid is not None
    os.kill(child.pid, number)
    assert processes.ended(child) == status
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said and not list(out.rglob(".*"))
    found = re.search(r"^prisma: stopped; prisma (train .* --resume) continues from here$", said, re.MULTILINE)
    assert found, said
    assert not is_finished(out)
    code, _, err = prisma(*shlex.split(found[1]))
    assert code == 0, err
    assert {name: timeless(out / name) for name in WRITTEN} == uninterrupted
