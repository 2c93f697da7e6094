"""The processes that share a piece of work: those started by `accelerate launch` or `torchrun`, or this one alone."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch

from prisma.errors import PrismaError, quoted

TIMEOUT = timedelta(days=30)  # of a barrier: the slowest process may need this much longer than the fastest

MOST = 65_535  # processes, as ports of a machine
NUMBERS = {
    "RANK": "the number of this process", "LOCAL_RANK": "the number of this process on its machine",
    "LOCAL_WORLD_SIZE": "the number of processes on a machine", "MASTER_PORT": "the port of the first process",
}  # fmt: skip
"""Variables that a launcher sets for each process -> what they state."""
OF_A_PROCESS = {"RANK", "LOCAL_RANK"}


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


ALONE = Processes()


def _stated(name: str, what: str, default: str, most: int = MOST) -> int:
    """The whole number in a variable of the environment, which a launcher sets."""
    text = os.environ.get(name, default)
    number = int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else -1
    if not 0 <= number <= most:
        raise PrismaError(f"expected {what} in {name}, a whole number from 0 to {most:,}; found {quoted(text)}")
    return number


@contextmanager
def launched_processes(device: str | None = None) -> Iterator[Processes]:
    """The processes that were launched together. All of them must enter the block and leave it.

    Args:
        device: "cpu" keeps all processes on the CPU; by default each process gets its own GPU.

    Raises:
        PrismaError: accelerate is not installed, one particular GPU was asked for although there are several
            processes, or not all launched processes were found.
    """
    launched = _stated("WORLD_SIZE", "the number of processes", "1")
    if launched < 2:
        yield Processes(device=device)
        return
    for name, what in NUMBERS.items():  # accelerate reads these
        _stated(name, what, "0", launched - 1 if name in OF_A_PROCESS else MOST)
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
