"""A task: a data set, and what a ViT must know about it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prisma.data.transform import Transform
from prisma.errors import PrismaError


@dataclass(frozen=True)
class Split:
    """Images [n, channel, height, width] in [0, 1] (float32) and labels [n] (int64)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Task:
    """One data set. `train` and `test` are made on first use, and their bytes are checked against `sha256`."""

    name: str
    summary: str  # one sentence for cards and pickers
    source: str  # where it comes from, with its licence
    labels: tuple[str, ...]
    transform: Transform
    make: Callable[[], tuple[Split, Split]]  # (train, test)
    sha256: str  # of images and labels of both splits

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """{"train": ..., "test": ...}.

        Raises:
            PrismaError: the data differ from what this task was defined with.
        """
        train, test = self.make()
        if (found := data_hash(train, test)) != self.sha256:
            raise PrismaError(f"the data of task {self.name} should hash to {self.sha256}, found {found}")
        return {"train": train, "test": test}

    def inputs(self, split: str) -> tuple[Tensor, Tensor]:
        """(normalised images [n, channel, height, width], labels [n]) of "train" or "test"."""
        data = self.splits[split]
        return self.transform.normalise(data.images), data.labels


def data_hash(*splits: Split) -> str:
    """SHA-256 over the images (rounded to 8 bits) and labels of the splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update((split.images * 255).round().to(torch.uint8).numpy().tobytes())
        digest.update(split.labels.to(torch.int64).numpy().tobytes())
    return digest.hexdigest()
