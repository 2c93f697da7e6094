"""A task: a data set, and what a ViT must know about it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import reduce
from torch import Tensor

from prisma.data.transform import Transform
from prisma.errors import PrismaError


@dataclass(frozen=True)
class Split:
    """Images [n, channel, height, width] in [0, 1] (float32) and labels [n] (int64); masks where objects are known."""

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None  # [n, height, width], bool: the object's pixels


@dataclass(frozen=True)
class Task:
    """One data set. `train` and `test` are made on first use, and their bytes are checked against `sha256`."""

    name: str
    summary: str  # one sentence for cards and pickers
    source: str  # where it comes from, with its licence
    labels: tuple[str, ...]
    transform: Transform
    make: Callable[[], tuple[Split, Split]]  # (train, test)
    sha256: str  # of images, labels and masks of both splits

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

    def inputs(self, split: str, first: int | None = None) -> tuple[Tensor, Tensor]:
        """(normalised images [n, channel, height, width], labels [n]) of "train" or "test"; or of the `first` ones."""
        data = self.splits[split]
        return self.transform.normalise(data.images[:first]), data.labels[:first]


def data_hash(*splits: Split) -> str:
    """SHA-256 over the images (rounded to 8 bits), labels and masks (if any) of the splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update((split.images * 255).round().to(torch.uint8).numpy().tobytes())
        digest.update(split.labels.to(torch.int64).numpy().tobytes())
        if split.masks is not None:
            digest.update(split.masks.numpy().tobytes())
    return digest.hexdigest()


def coverage(masks: Tensor, patch_size: int | tuple[int, int]) -> Tensor:
    """Which share of each patch is object: [n, patch row, patch column] in [0, 1], float32.

    Args:
        masks: [n, height, width], true (or 1) where the object is.
        patch_size: pixels, a side or (height, width), as a ViTConfig has it.

    Raises:
        PrismaError: the masks are not whole patches.
    """
    p, q = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    if masks.ndim != 3 or masks.shape[1] % p or masks.shape[2] % q:
        raise PrismaError(f"expected masks [n, height, width] of whole patches of {p}x{q}, found {list(masks.shape)}")
    return reduce(masks.float(), "n (h p) (w q) -> n h w", "mean", p=p, q=q)
