"""A task: a data set with its labels and transform."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from prisma.data.keeping import keep, read_kept
from prisma.data.transform import Transform, as_bytes
from prisma.errors import PrismaError, quoted

_SOME = 4096  # images that are hashed in one go; divisible by 8
SEED = 0
"""Of every random number with which a task is made: one name means the same images everywhere."""

_TENSORS = ("images", "labels", "masks", "objects", "kinds")
_FACTOR = "factors."


@dataclass(frozen=True)
class Factor:
    """A factor of variation: something in which the images of a task differ by intent."""

    name: str  # of its values in `Split.factors`
    words: str  # what it is, as a phrase
    values: tuple[str, ...] = ()  # the names of the values 0, 1, ...; none: the values are numbers that mean themselves
    count: int = 0  # of such numbers, where they are 0, 1, ... and so many; 0: any

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each value, where it has finitely many; else none."""
        return self.values or tuple(str(value) for value in range(self.count))


@dataclass(frozen=True)
class Split:
    """Images [n, channel, height, width], labels [n] (int64) and, if known, object masks."""

    images: Tensor  # in [0, 1] (float32); or 255 is white (uint8); or, of black and white alone, true on white (bool)
    labels: Tensor
    masks: Tensor | None = None  # [n, height, width], bool: true on the object
    factors: Mapping[str, Tensor] = field(default_factory=dict)  # name -> value of each image [n], int64
    objects: Tensor | None = None  # [n, height, width], uint8: which object a pixel shows, 1, 2, ...; 0: none
    kinds: Tensor | None = None  # [n, object], int64: what each object is, of the task's kinds; -1: it is not there

    @property
    def masks_are_images(self) -> bool:
        """Whether the masks equal the images, of black and white."""
        if self.masks is None or self.images.dtype != torch.bool or self.images.shape[1] != 1:
            return False
        return torch.equal(self.masks, self.images[:, 0])

    def object_masks(self, rows: slice = slice(None)) -> Tensor:
        """[n, object, height, width], bool: true on the k-th object; an object that is not there has an empty mask.

        Raises:
            PrismaError: the images have no masks.
        """
        if self.masks is None:
            raise PrismaError("expected images with masks; found none")
        if self.objects is None or self.kinds is None:
            return self.masks[rows, None]
        return self.objects[rows, None] == torch.arange(1, 1 + self.kinds.shape[1])[:, None, None]

    def tensors(self) -> dict[str, Tensor]:
        """All that it holds, by name, as a file keeps it."""
        own = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        return own | {f"{_FACTOR}{name}": x for name, x in self.factors.items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "Split":
        """The inverse of `tensors`. Raises TypeError for other names, or if images or labels are missing."""
        factors = {name.removeprefix(_FACTOR): x for name, x in tensors.items() if name.startswith(_FACTOR)}
        return cls(**{name: x for name, x in tensors.items() if not name.startswith(_FACTOR)}, factors=factors)


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
    targets: tuple[str, ...] = ()  # factors that are asked for together, instead of the label
    kept: bool = False  # on this machine, once they are made: making them takes longer than reading a file
    kinds: tuple[str, ...] = ()  # what objects can be; none: the one object of an image is what its label says
    rule: Callable[[Mapping[str, Tensor]], Tensor] | None = None  # labels from factors, where they follow from them

    @property
    def is_here(self) -> bool:
        """Whether this machine has the data, or can make them."""
        return bool(self.sha256)

    @classmethod
    def of_splits(
        cls,
        name: str,
        train: Split,
        test: Split,
        *,
        labels: Sequence[str],
        transform: Transform,
        summary: str,
        source: str,
        license: str | None = None,
    ) -> "Task":
        """The task of data that are there already. Its hash is theirs.

        Raises:
            PrismaError: images that are not those of the transform, or labels that are no class.
        """
        whole = train, test
        for split, data in zip(("train", "test"), whole, strict=True):
            _expect_described(f"the {split} images of {name}", data, len(labels), transform)
        return cls(name, summary, source, tuple(labels), transform, lambda: whole, data_hash(*whole), license=license)

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """{"train": ..., "test": ...}.

        Raises:
            PrismaError: the data differ from those that the task was defined with.
        """
        if self.kept and (found := read_kept(self.sha256)) is not None and (splits := self._of_kept(found)):
            return splits
        train, test = self.make()
        if (sha256 := data_hash(train, test)) != self.sha256:
            raise PrismaError(f"expected data of hash {self.sha256} for the task {self.name}; found {sha256}")
        splits = {"train": train, "test": test}
        if self.kept:
            keep(sha256, {f"{name}.{key}": x for name, split in splits.items() for key, x in split.tensors().items()})
        return splits

    def _of_kept(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Split] | None:
        """The splits of a file, if it holds those of this task."""
        parts: dict[str, dict[str, Tensor]] = {"train": {}, "test": {}}
        try:
            for name, x in tensors.items():
                split, _, key = name.partition(".")
                parts[split][key] = x
            splits = {name: Split.of_tensors(part) for name, part in parts.items()}
        except (KeyError, TypeError):
            return None
        names = {factor.name for factor in self.factors}
        whole = all(split.factors.keys() == names for split in splits.values())
        return splits if whole and data_hash(*splits.values()) == self.sha256 else None

    def answers(self, split: str) -> Mapping[str, Tensor]:
        """What is asked of the images of a split: the number of each image's answer [n], by the name of the question.

        A task of one question has one, `label`; one of several targets has each of them.
        """
        data = self.splits[split]
        return {name: data.factors[name] for name in self.targets} if self.targets else {"label": data.labels}

    def answer_names(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the answers, by the name of the question."""
        named = {factor.name: factor.values for factor in self.factors}
        return {name: named[name] for name in self.targets} if self.targets else {"label": self.labels}

    def inputs(self, split: str, first: int | None = None) -> tuple[Tensor, Tensor]:
        """(normalised images [n, channel, height, width], labels [n]) of the split "train" or "test".

        Args:
            first: use only the first N images.
        """
        data = self.splits[split]
        return self.transform.normalise(data.images[:first]), data.labels[:first]


def _expect_described(what: str, split: Split, n_classes: int, transform: Transform) -> None:
    """Raise PrismaError unless a split has images as the transform says, and a label for each."""
    sides = [len(split.labels), len(transform.mean), *transform.size]
    if list(split.images.shape) != sides or not len(split.labels):
        raise PrismaError(f"expected {what} to be {sides}, as the transform says; found {list(split.images.shape)}")
    least, most = int(split.labels.min()), int(split.labels.max())
    if least < 0 or most >= n_classes:
        wrong = least if least < 0 else most
        raise PrismaError(f"expected {what} to have labels from 0 to {n_classes - 1}; found {wrong}")


def data_hash(*splits: Split) -> str:
    """SHA-256 over the images (rounded to 8 bits), labels, masks and objects (if any) of the splits, in order.

    Images of black and white count with 8 pixels to a byte, and masks that equal these images do not count.
    """
    digest = hashlib.sha256()
    for split in splits:
        for images in split.images.split(_SOME):
            whole = images.numpy() if images.dtype == torch.bool else as_bytes(images).numpy()
            digest.update((np.packbits(whole) if images.dtype == torch.bool else whole).tobytes())
        digest.update(split.labels.to(torch.int64).numpy().tobytes())
        if split.masks is not None and not split.masks_are_images:
            digest.update(split.masks.numpy().tobytes())
        for more in (split.objects, split.kinds):
            digest.update(b"" if more is None else more.numpy().tobytes())
    return digest.hexdigest()


def patch_sides(masks: Tensor, patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a patch. Raises PrismaError unless the masks are whole numbers of patches."""
    sides = (patch_size, patch_size) if type(patch_size) is int else patch_size
    if not isinstance(sides, tuple) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise PrismaError(f"expected a patch size in pixels, a side or (height, width); found {quoted(patch_size)}")
    p, q = sides
    if min(p, q) < 1 or masks.ndim != 3 or masks.shape[1] % p or masks.shape[2] % q:
        raise PrismaError(f"expected masks [n, height, width] of whole patches of {p}x{q}; found {list(masks.shape)}")
    return p, q


def coverage(masks: Tensor, patch_size: int | tuple[int, int]) -> Tensor:
    """The share of each patch that the object covers: [n, patch row, patch column] in [0, 1], float32.

    Args:
        masks: [n, height, width], true (or 1) on the object.
        patch_size: pixels, a side or (height, width), as in a ViTConfig.

    Raises:
        PrismaError: the sides of the masks are not whole numbers of patches.
    """
    p, q = patch_sides(masks, patch_size)
    return reduce(masks.float(), "n (h p) (w q) -> n h w", "mean", p=p, q=q)
