"""Two processes that share every batch train as one does."""

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from prisma.errors import PrismaError
from prisma.launched import Processes, launched_processes
from prisma.run_folder import is_finished, read_metrics, read_recipe
from prisma.train import Recipe, train
from prisma.train.run import Run
from prisma.train.shared import expect_shares, leading
from prisma.train.steps import Eager
from tests import processes
from tests.train.stacks import run_of


def member(rank: int, port: int, recipe: Recipe, out: Path, stop_at: int | None) -> None:
    """One of two processes, with the variables that `accelerate launch` and `torchrun` set."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    write: Callable[..., None] = Run.write

    def interrupted(run: Run, log: Any, line: Mapping[str, Any]) -> None:
        write(run, log, line)
        if line["step"] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    Run.write = interrupted  # type: ignore[method-assign]
    with launched_processes("cpu") as here:
        try:
            results = train(recipe, out, resume=out.exists(), processes=here, progress=False)
            assert bool(results) == here.is_first
        except KeyboardInterrupt:
            assert stop_at is not None
        except PrismaError as error:
            (out.parent / f"error-{rank}.txt").write_text(str(error))


def train_by_two(recipe: Recipe, out: Path, stop_at: int | None = None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = processes.context()
    children = [context.Process(target=member, args=(rank, port, recipe, out, stop_at)) for rank in range(2)]
    for child in children:
        child.start()
    assert [processes.ended(child) for child in children] == [0, 0]


def test_two_processes_have_the_losses_of_one_and_resume_to_the_same_bits(
    tiny: Recipe, whole: Path, tmp_path: Path
) -> None:
    train_by_two(tiny, tmp_path / "two")
    ours, theirs = (read_metrics(out / "metrics.jsonl") for out in (tmp_path / "two", whole))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for key in ("loss", "test_loss", "gradient_norm"):
        values = [line[key] for line in ours if key in line]
        assert values == pytest.approx([line[key] for line in theirs if key in line], rel=1e-4)
    assert read_recipe(tmp_path / "two")["run"] == read_recipe(whole)["run"]

    train_by_two(tiny, tmp_path / "parts", stop_at=30)
    assert not is_finished(tmp_path / "parts")
    train_by_two(tiny, tmp_path / "parts")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    train_by_two(tiny, tmp_path)  # which is full: the first says so, and the second ends too
    assert "expected" in (tmp_path.parent / "error-0.txt").read_text()
    assert not (tmp_path.parent / "error-1.txt").exists()


def test_a_part_of_a_batch_may_be_computed_in_parts_of_other_sizes(tiny: Recipe) -> None:
    whole, divided = (run_of(tiny.override({"batch_size": "12", "accumulate": n}), 0) for n in ("1", "4"))
    one, other = Eager(whole), Eager(divided)
    one.part = other.part = slice(0, None, 2)  # six images, in parts of two
    assert one.measure(3)[0] == pytest.approx(other.measure(3)[0], rel=1e-12)


def test_a_batch_that_cannot_be_shared_is_refused(tiny: Recipe) -> None:
    with pytest.raises(PrismaError, match=r"batch_size to be a multiple of the 3 processes, .* found 32"):
        expect_shares(tiny, Processes(0, 3))


def test_a_process_that_is_lost_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.shared._tell", lambda *_: None)
    words = r"all 2 processes to train to the end; found that one was lost: --resume"
    with pytest.raises(PrismaError, match=words), leading(Processes(0, 2, "cpu")):
        raise torch.distributed.DistBackendError("Connection closed by peer")
    with pytest.raises(RuntimeError, match="something else"), leading(Processes(0, 2, "cpu")):
        raise RuntimeError("something else")
