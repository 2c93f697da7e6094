"""Processes that share the shards of one analysis."""

import json
import os
import socket
from pathlib import Path

import pytest

from prisma import PrismaError
from prisma.study.processes import team
from prisma.study.shards import run_study
from tests import processes
from tests.study.study import study_of


def test_one_process_is_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with team("cpu") as alone:
        assert (alone.rank, alone.size, alone.device, alone.first) == (0, 1, "cpu", True)
        alone.wait()


def test_many_processes_have_a_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PrismaError, match=r"a device each: expected .* found 'cuda:1'"), team("cuda:1"):
        pass


def member(rank: int, port: int, out: Path) -> None:
    """What `accelerate launch` and `torchrun` tell each process, and what it then does."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with team("cpu") as here:
        summary = run_study(study_of("activation_patching", out), team=here, progress=False)
        shares = [i for i in range(3) if i % here.size == here.rank]
        (out.parent / f"{rank}.json").write_text(json.dumps([here.rank, here.size, shares, summary["images"]]))


def test_two_processes_share_the_shards(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    children = [processes.context().Process(target=member, args=(rank, port, out)) for rank in range(2)]
    for child in children:
        child.start()
    assert [processes.ended(child) for child in children] == [0, 0]
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert said == [[0, 2, [0, 2], 5], [1, 2, [1], 5]]
    run_study(study_of("activation_patching", tmp_path / "alone"), progress=False)
    for name in ("summary.json", "shard-00001.npz", "shard-00002.npz"):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
