"""The processes that share an analysis: those started by `accelerate launch` or `torchrun`, or this one alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch

from prisma.errors import PrismaError, quoted

TIMEOUT = timedelta(days=30)  # of a barrier: the slowest process may need this much longer than the fastest


@dataclass(frozen=True)
class Processes:
    """This process (number `rank`) and how many processes there are (`count`)."""

    rank: int = 0
    count: int = 1
    device: str | None = None  # the device of this process; None: not specified
    barrier: Callable[[], None] = lambda: None  # returns once every process has called it

    @property
    def is_first(self) -> bool:
        return self.rank == 0


@contextmanager
def launched_processes(device: str | None = None) -> Iterator[Processes]:
    """The processes that were launched together. All of them must enter the block and leave it.

    Args:
        device: "cpu" keeps all processes on the CPU; by default each process gets its own GPU.

    Raises:
        PrismaError: accelerate is not installed, one particular GPU was asked for although there are several
            processes, or not all launched processes were found.
    """
    stated = os.environ.get("WORLD_SIZE", "1")
    if not stated.isdecimal():
        raise PrismaError(f"expected the number of processes in WORLD_SIZE; found {quoted(stated)}")
    launched = int(stated)
    if launched < 2:
        yield Processes(device=device)
        return
    if device not in (None, "cpu", "cuda"):
        raise PrismaError(
            f"expected --device cpu or cuda, or no --device, since each of several processes has a device of its own; "
            f"found {device!r}"
        )
    try:
        from accelerate import PartialState
    except ImportError:
        raise PrismaError(
            "expected the package accelerate, which several processes need; found none; pip install accelerate"
        ) from None
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=TIMEOUT)
    if state.num_processes != launched:
        raise PrismaError(f"expected all {launched} processes that were launched; found {state.num_processes}")
    yield Processes(state.process_index, state.num_processes, str(state.device), state.wait_for_everyone)
    state.destroy_process_group()
