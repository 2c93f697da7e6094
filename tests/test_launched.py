"""Several processes share the shards of one analysis."""

import json
import os
import socket
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prisma import PrismaError
from prisma.launched import launched_processes
from prisma.study.shards import run_dataset_analysis
from tests import processes
from tests.study.study import job_of


def test_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched_processes("cpu") as alone:
        assert (alone.rank, alone.count, alone.device, alone.is_first) == (0, 1, "cpu", True)
        alone.barrier()


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(PrismaError, match=r"expected --device cpu or cuda, .*; found 'cuda:1'"),
        launched_processes("cuda:1"),
    ):
        pass


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(PrismaError, match=r"expected the package accelerate, .*; found none"), launched_processes():
        pass


def test_processes_that_are_missing_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE alone, without the address of the first process, starts no group."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    alone = SimpleNamespace(num_processes=1)
    monkeypatch.setattr("accelerate.PartialState", lambda **_: alone)
    with pytest.raises(PrismaError, match="expected all 2 processes that were launched; found 1"), launched_processes():
        pass


@dataclass
class FakeState:
    """What accelerate says in the second of two processes, without a process group."""

    cpu: bool
    timeout: timedelta
    num_processes = 2
    process_index = 1
    device = torch.device("cpu")
    ended = False

    def wait_for_everyone(self) -> None:
        pass

    def destroy_process_group(self) -> None:
        self.ended = True


def test_what_accelerate_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[FakeState] = []

    def state(**options: Any) -> FakeState:
        states.append(FakeState(**options))
        return states[-1]

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", state)
    with launched_processes("cpu") as here:
        assert (here.rank, here.count, here.device, here.is_first) == (1, 2, "cpu", False)
        assert here.barrier == states[0].wait_for_everyone
        assert states[0].cpu and not states[0].ended
    assert states[0].ended


def member(rank: int, port: int, out: Path) -> None:
    """One of two processes, with the environment variables that `accelerate launch` and `torchrun` set."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with launched_processes("cpu") as here:
        summary = run_dataset_analysis(job_of("activation_patching", out), processes=here, progress=False)
        shares = [i for i in range(3) if i % here.count == here.rank]
        (out.parent / f"{rank}.json").write_text(json.dumps([here.rank, here.count, shares, summary["images"]]))


def test_two_processes_share_the_shards(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    children = [processes.context().Process(target=member, args=(rank, port, out)) for rank in range(2)]
    for child in children:
        child.start()
    assert [processes.ended(child) for child in children] == [0, 0]
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert reports == [[0, 2, [0, 2], 5], [1, 2, [1], 5]]
    run_dataset_analysis(job_of("activation_patching", tmp_path / "alone"), progress=False)
    for name in ("summary.json", "shard-00001.npz", "shard-00002.npz"):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("kind", ["9" * 5_000, "-1", "two", "٢", "²", "", "2.0", "0x2", " 2", "70000"])
def test_a_variable_that_is_no_number_is_named(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, kind)
    with (
        pytest.raises(
            PrismaError, match=rf"^expected the \w+ of .* in {name}, a whole number from 0 to \d+.*; found '"
        ),
        launched_processes("cpu"),
    ):
        pass


def test_the_number_of_a_process_is_below_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with (
        pytest.raises(PrismaError, match=r"in RANK, a whole number from 0 to 1; found '2'$"),
        launched_processes("cpu"),
    ):
        pass
