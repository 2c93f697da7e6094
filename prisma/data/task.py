"""A task: a data set with its labels and transform."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from prisma.data.transform import Transform, as_bytes
from prisma.errors import PrismaError

SEED = 0
"""Of every random number with which a task is made: one name means the same images everywhere."""


@dataclass(frozen=True)
class Factor:
    """A factor of variation: something in which the images of a task differ by intent."""

    name: str  # of its values in `Split.factors`
    words: str  # what it is, as a phrase
    values: tuple[str, ...] = ()  # the names of the values 0, 1, ...; none: the values are numbers that mean themselves


@dataclass(frozen=True)
class Split:
    """Images [n, channel, height, width], labels [n] (int64) and, if known, object masks."""

    images: Tensor  # in [0, 1] (float32); or 255 is white (uint8); or, of black and white alone, true on white (bool)
    labels: Tensor
    masks: Tensor | None = None  # [n, height, width], bool: true on the object
    factors: Mapping[str, Tensor] = field(default_factory=dict)  # name -> value of each image [n], int64


@dataclass(frozen=True)
class Task:
    """A data set. The splits `train` and `test` are made on first use, and their hash is compared with `sha256`."""

    name: str
    summary: str  # one sentence, for cards and lists
    source: str  # the origin of the data, and its licence
    labels: tuple[str, ...]
    transform: Transform
    make: Callable[[], tuple[Split, Split]]  # (train, test)
    sha256: str  # hash of the images, labels and masks of both splits
    factors: tuple[Factor, ...] = ()  # with which the images were drawn; none of images that were not drawn
    license: str | None = None  # of the data, as the Hub names it

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """{"train": ..., "test": ...}.

        Raises:
            PrismaError: the data differ from those that the task was defined with.
        """
        train, test = self.make()
        if (found := data_hash(train, test)) != self.sha256:
            raise PrismaError(f"expected data of hash {self.sha256} for the task {self.name}; found {found}")
        return {"train": train, "test": test}

    def inputs(self, split: str, first: int | None = None) -> tuple[Tensor, Tensor]:
        """(normalised images [n, channel, height, width], labels [n]) of the split "train" or "test".

        Args:
            first: use only the first N images.
        """
        data = self.splits[split]
        return self.transform.normalise(data.images[:first]), data.labels[:first]


def data_hash(*splits: Split) -> str:
    """SHA-256 over the images (rounded to 8 bits), labels and masks (if any) of the splits, in order.

    Images of black and white count with 8 pixels to a byte, and masks that equal these images do not count.
    """
    digest = hashlib.sha256()
    for split in splits:
        if split.images.dtype == torch.bool:
            digest.update(np.packbits(split.images.numpy()).tobytes())
        else:
            digest.update(as_bytes(split.images).numpy().tobytes())
        digest.update(split.labels.to(torch.int64).numpy().tobytes())
        if split.masks is not None and not _are(split.masks, split.images):
            digest.update(split.masks.numpy().tobytes())
    return digest.hexdigest()


def _are(masks: Tensor, images: Tensor) -> bool:
    """Whether masks are the images themselves, of black and white."""
    return images.dtype == torch.bool and images.shape[1] == 1 and torch.equal(masks, images[:, 0])


def coverage(masks: Tensor, patch_size: int | tuple[int, int]) -> Tensor:
    """The share of each patch that the object covers: [n, patch row, patch column] in [0, 1], float32.

    Args:
        masks: [n, height, width], true (or 1) on the object.
        patch_size: pixels, a side or (height, width), as in a ViTConfig.

    Raises:
        PrismaError: the sides of the masks are not whole numbers of patches.
    """
    p, q = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    if masks.ndim != 3 or masks.shape[1] % p or masks.shape[2] % q:
        raise PrismaError(f"expected masks [n, height, width] of whole patches of {p}x{q}; found {list(masks.shape)}")
    return reduce(masks.float(), "n (h p) (w q) -> n h w", "mean", p=p, q=q)
