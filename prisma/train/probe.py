"""The probe of a run: a few test images, the same for every checkpoint and for every run of a task."""

from pathlib import Path

import torch
from torch import Tensor

from prisma.checkpoint import to_safetensors
from prisma.data.task import Split, Task
from prisma.files import write_atomic
from prisma.run_folder import PROBE

PROBE_IMAGES = 64


def write_probe(out: Path, data: Task) -> None:
    """Write the probe images of a task into a run folder, unless they are there."""
    if not (out / PROBE).is_file():
        probe = probe_images(data.splits["test"])
        write_atomic(out / PROBE, to_safetensors({"images": probe.images, "labels": probe.labels}, {}))


def probe_images(split: Split, n: int = PROBE_IMAGES) -> Split:
    """The first images of each class, the classes in turn: label 0, 1, ..., 0, 1, ..."""
    seen: dict[int, int] = {}
    turns: list[tuple[int, int, int]] = []
    for i, label in enumerate(split.labels.tolist()):
        turns.append((seen.get(label, 0), label, i))
        seen[label] = seen.get(label, 0) + 1
    chosen: Tensor = torch.tensor([i for _, _, i in sorted(turns)[:n]])
    return Split(split.images[chosen], split.labels[chosen])
