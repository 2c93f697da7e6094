"""How large things may be: the one home of bounds, for numbers that people type and for files that strangers write.

Sizes are checked against these before anything is allocated.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError, quoted

LARGEST = 1_000_000  # the largest size along one axis of a model
NUMBERS: Mapping[str, tuple[float, float]] = {
    # an architecture
    "n_layers": (0, 1_000),
    "d_model": (1, LARGEST),
    "n_heads": (1, 10_000),
    "d_head": (0, LARGEST),
    "d_mlp": (0, LARGEST),
    "mlp_ratio": (0, 1_000),  # d_mlp / d_model
    "norm_eps": (0, 1),
    "rotary_base": (1, 1e9),
    "image_size": (1, 100_000),
    "patch_size": (1, 100_000),
    "channels": (1, 10_000),
    "frames": (1, 100_000),
    "tubelet": (1, 100_000),
    "n_classes": (0, LARGEST),
    "norm_final_eps": (0, 1),
    "registers": (0, 10_000),
    "pool_heads": (1, 10_000),
    "pool_d_mlp": (0, LARGEST),
    "vocabulary": (1, 10_000_000),
    "context": (1, 100_000),
    "end": (0, 10_000_000),
    "parts": (-1_000, 20_000),  # any other count; negative numbers count from the end, or mean "not given"
    "size": (-1_000, 10_000_000),  # any other size
    # a recipe
    "steps": (1, 100_000_000),
    "batch_size": (1, LARGEST),
    "lr": (1e-12, 1_000),
    "warmup": (0, 100_000_000),
    "weight_decay": (0, 1_000),
    "clip": (1e-12, 1e9),
    "shift": (0, 10_000),
    "turn": (0, 360),
    "checkpoint_every": (1, 100_000_000),
    "init_seed": (0, 2**32 - 1),
    "order_seed": (0, 2**32 - 1),
    "decay_every": (0, 100_000_000),
    "decay_factor": (0, 1),
    "accumulate": (1, LARGEST),
    "ema": (0, 1),
    "patience": (0, 100_000_000),
    "stop_at_accuracy": (0, 1),
    "drop": (0, 1),
    "goal_every": (0, 100_000_000),
    "decoder_layers": (0, 1_000),
    "decoder_d_model": (1, LARGEST),
    "decoder_heads": (1, 10_000),
    "threads": (1, 512),  # torch ends the process where the machine cannot start as many
    # an analysis
    "seed": (0, 2**63 - 1),
    "scale": (0, 1e30),
    "factor": (0, 1e30),
    # products
    "tokens": (0, LARGEST),
    "weights": (0, 100_000_000_000),
    "checkpoints": (0, 10_000),
    "pixels per batch": (1, 2**31),
    "trained weights": (0, 1_000_000_000),  # with gradients and Adam's two moments: 16 GB
}
"""What is counted -> the smallest and the largest number of it."""

# files, in bytes
JSON, METRICS, OWN_LIST = 2**24, 2**30, 2**30
HEADER = 100_000_000  # of the JSON in a safetensors file, as the format has it
RESULT = 2**33  # all arrays of a saved result
# in a file
DEPTH, VALUES, DIGITS = 64, 4_000_000, 300  # of JSON: nested lists, values, digits of a whole number
TENSORS, ARRAYS = 200_000, 1_000
LONGEST_LABEL = 1_000  # characters: a prompt may be the name of a class
PICTURE_FILES = 10_000_000  # in a folder and the folders below it


def expect_within(name: str, value: Any, what: str | None = None) -> None:
    """Check a number, or each number of a tuple, against the bounds of its name; what is no number has none.

    Args:
        what: how the message calls it; by default its name.

    Raises:
        PrismaError: a number is NaN or outside the bounds, which are named.
    """
    low, high = NUMBERS[name]
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(low <= number <= high for number in numbers if type(number) in (int, float)):
        bounds = f"from {low:,g} to {high:,}" if low != int(low) else f"from {low:,} to {high:,}"
        raise PrismaError(f"expected {what or name} to be {bounds}; found {quoted(value)}")


def expect_memory(size: int, what: str) -> None:
    """Raise PrismaError if `size` bytes are more than this machine, or this container, has in all."""
    if size > (there := machine_memory()):
        raise PrismaError(
            f"expected {what} to fit into this machine's memory of {_in_words(there)}; found {_in_words(size)}"
        )


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container that this process runs in, if that is less."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        there = 2**63
    try:
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return there


def _in_words(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
