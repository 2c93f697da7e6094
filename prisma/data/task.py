"""A task: a data set with its labels and transform."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from prisma.data.transform import Transform
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
class Target:
    """One of several things that a task asks of every image: one of some classes, or a number."""

    name: str
    classes: tuple[str, ...] = ()  # none: it is a number

    @property
    def outputs(self) -> tuple[str, ...]:
        """A name for each number with which a model answers: the logits of the classes, or the number itself."""
        return tuple(f"{self.name} {name}" for name in self.classes) or (self.name,)

    def words(self, value: float) -> str:
        """An answer in words."""
        return self.outputs[int(value)] if self.classes else f"{self.name} {value:g}"


@dataclass(frozen=True)
class Split:
    """Images [n, channel, height, width], their labels and, if known, object masks."""

    images: Tensor  # in [0, 1] (float32); or, of black and white alone, true on white (bool)
    labels: Tensor  # [n], int64; of a task with several targets [n, target], float32 if they are numbers
    masks: Tensor | None = None  # [n, height, width], bool: true on the object
    factors: Mapping[str, Tensor] = field(default_factory=dict)  # name -> value of each image [n], int64


@dataclass(frozen=True)
class Task:
    """A data set. The splits `train` and `test` are made on first use, and their hash is compared with `sha256`."""

    name: str
    summary: str  # one sentence, for cards and lists
    source: str  # the origin of the data, and its licence
    labels: tuple[str, ...]  # the names of the classes; of several targets, of the outputs of all
    transform: Transform
    make: Callable[[], tuple[Split, Split]]  # (train, test)
    sha256: str  # hash of the images, labels and masks of both splits
    factors: tuple[Factor, ...] = ()  # with which the images were drawn; none of images that were not drawn
    license: str | None = None  # of the data, as the Hub names it
    targets: tuple[Target, ...] = ()  # of a task that asks several things at once: all of classes, or all numbers

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

    def words(self, labels: Tensor) -> list[str]:
        """What labels [n] or [n, target] say, in words: "heart"; or "shape heart, x 3"."""
        if not self.targets:
            return [self.labels[label] for label in labels.tolist()]
        rows = (zip(self.targets, row, strict=True) for row in labels.tolist())
        return [", ".join(target.words(value) for target, value in row) for row in rows]


def data_hash(*splits: Split) -> str:
    """SHA-256 over the images (rounded to 8 bits), labels and masks (if any) of the splits, in order.

    Images of black and white count with 8 pixels to a byte, and masks that are these images themselves do not count.
    """
    digest = hashlib.sha256()
    for split in splits:
        if split.images.dtype == torch.bool:
            digest.update(np.packbits(split.images.numpy()).tobytes())
        else:
            digest.update((split.images * 255).round().to(torch.uint8).numpy().tobytes())
        digest.update((split.labels if split.labels.is_floating_point() else split.labels.long()).numpy().tobytes())
        if split.masks is not None and split.masks.data_ptr() != split.images.data_ptr():
            digest.update(split.masks.numpy().tobytes())
    return digest.hexdigest()


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
