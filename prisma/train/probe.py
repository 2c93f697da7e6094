"""The probe of a run: a few test images, the same for every checkpoint and for every run of a task."""

from pathlib import Path

import torch
from torch import Tensor

from prisma.checkpoint import read_tensors, to_safetensors, weights_hash
from prisma.data.task import Split, Task
from prisma.data.transform import as_floats
from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.run_folder import PROBE

PROBE_IMAGES = 64


def write_probe(out: Path, data: Task) -> None:
    """Write the probe images of a task into a run folder, unless they are there.

    Raises:
        PrismaError: other images are there, or the file could not be written.
    """
    probe = probe_images(data.splits["test"])
    tensors = {"images": probe.images, "labels": probe.labels}
    if not (out / PROBE).is_file():
        write_atomic(out / PROBE, to_safetensors(tensors, {}))
    elif weights_hash(read_tensors(out / PROBE)[0]) != weights_hash(tensors):
        raise PrismaError(
            f"expected the probe images of the task {data.name} in {out / PROBE}; found others: remove the file, "
            "and it is written again"
        )


def probe_images(split: Split, n: int = PROBE_IMAGES) -> Split:
    """The first images of each class, the classes in turn: label 0, 1, ..., 0, 1, ..."""
    seen: dict[int, int] = {}
    turns: list[tuple[int, int, int]] = []
    for i, label in enumerate(split.labels.tolist()):
        turns.append((seen.get(label, 0), label, i))
        seen[label] = seen.get(label, 0) + 1
    chosen: Tensor = torch.tensor([i for _, _, i in sorted(turns)[:n]])
    masks = None if split.masks is None else split.masks[chosen]
    factors = {name: x[chosen] for name, x in split.factors.items()}
    return Split(as_floats(split.images[chosen]), split.labels[chosen], masks, factors)
