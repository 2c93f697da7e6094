"""Processes that share the work: those of `accelerate launch` or `torchrun`, or this one alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch

from prisma.errors import PrismaError

PATIENCE = timedelta(days=30)  # how long the first to finish waits for the last


@dataclass(frozen=True)
class Team:
    """This process among `size`, of which it is number `rank`."""

    rank: int = 0
    size: int = 1
    device: str | None = None  # that it is to work on; None: it may choose
    wait: Callable[[], None] = lambda: None  # until all processes have come here

    @property
    def first(self) -> bool:
        return self.rank == 0


@contextmanager
def team(device: str | None = None) -> Iterator[Team]:
    """The processes that were launched together, for a block that all of them go through.

    Args:
        device: "cpu" keeps all of them off the accelerators; by default each has one of its own.

    Raises:
        PrismaError: accelerate is not installed, or one device is asked for and there are many processes.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched < 2:
        yield Team(device=device)
        return
    if device not in (None, "cpu", "cuda"):
        raise PrismaError(f"many processes have a device each: expected --device cpu, cuda or none, found {device!r}")
    try:
        from accelerate import PartialState
    except ImportError:
        raise PrismaError("many processes need accelerate, found none; pip install accelerate") from None
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)
    if state.num_processes != launched:
        raise PrismaError(f"expected to find all {launched} processes that were launched, found {state.num_processes}")
    yield Team(state.process_index, state.num_processes, str(state.device), state.wait_for_everyone)
    state.destroy_process_group()
