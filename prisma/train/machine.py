"""The machine that a run uses: its device, and how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prisma.errors import PrismaError


def pick_device(name: str | None) -> torch.device:
    """The device of this name; by default CUDA if there is one, else the CPU.

    Raises:
        PrismaError: this machine has no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(
            f"expected a device such as cpu or cuda that this machine has; found {name!r}: {reason}"
        ) from None
    return device


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads in the block, and its previous number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
