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


def computes_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products are in bfloat16: where a recipe asks for it, on a device with units for it.

    These are GPUs, and CPUs with AMX or AVX-512 BF16; others would be many times slower than in float32.
    """
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return precision == "bfloat16" and (device.type != "cpu" or fast)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch or Python raises where memory, of a device or of the machine, has no more room."""
    cpu = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)


@contextmanager
def in_memory(batch_size: int, accumulate: int, runs: int) -> Iterator[None]:
    """Steps within: where they have no room, the error says which settings to try.

    Raises:
        PrismaError: out of memory; with half the batch, and with the next larger number of parts that divides it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = [f"batch_size={batch_size // 2}"] if batch_size > 1 else ["a smaller model"]
        parts = next((n for n in range(accumulate + 1, batch_size + 1) if batch_size % n == 0), None)
        smaller += [f"the same batch in parts, accumulate={parts}"] if parts else []
        smaller += ["fewer seeds at once"] if runs > 1 else []
        of = f" of each of {runs} runs" if runs > 1 else ""
        raise PrismaError(
            f"expected a step of {batch_size:,} images{of} to fit into memory; found no room for it: try "
            f"{', or '.join(smaller)} (with --set), in another folder; its checkpoints so far are kept"
        ) from None


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads in the block, and its previous number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
