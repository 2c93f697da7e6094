"""What does each patch of an image show, and how much of it? From masks of objects, for any patch size.

Of tasks whose images have masks (`patch_labels`), and of segmentations on disk in ImageNet-S's form (`Segmentations`;
Gao et al. 2022, arXiv 2106.03149): a PNG file for each picture, in which a colour means a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prisma.data.picture_files import picture_files
from prisma.data.task import Split, Task, patch_sides
from prisma.data.transform import Transform
from prisma.errors import PrismaError, quoted
from prisma.filesystem import given

IGNORED = 1000  # the number that ImageNet-S gives to pixels that nobody judged


@dataclass(frozen=True)
class PatchLabels:
    """Of each patch, the share that is covered by things of each name. A patch may show several, or none."""

    shares: Tensor  # [n, patch row, patch column, name], float32, in [0, 1]
    names: tuple[str, ...]

    @property
    def coverage(self) -> Tensor:
        """The share of each patch that things of any name cover: [n, patch row, patch column], in [0, 1]."""
        return self.shares.sum(-1)

    def at(self, image: int, row: int, column: int, least: float = 0.0) -> list[str]:
        """What a patch shows, the largest share first; of equal shares in the order of `names`.

        Args:
            least: leave out what covers less than this share of the patch.
        """
        shares = self.shares[image, row, column]
        order = shares.argsort(descending=True, stable=True).tolist()
        return [self.names[i] for i in order if shares[i] > 0 and shares[i] >= least]


def patch_labels(
    data: Task, split: str, patch_size: int | tuple[int, int], rows: slice | Sequence[int] = slice(None)
) -> PatchLabels:
    """What the patches of a task's images show: the kind of their object, or of each of their objects.

    Args:
        split: "train" or "test".
        patch_size: pixels, a side or (height, width), as in a ViTConfig.
        rows: which images; by default all.

    Raises:
        PrismaError: no such split or row; a task without masks; sides that are not whole numbers of patches.
    """
    if split not in data.splits:
        raise PrismaError(f"expected a split of the task {data.name}: train or test; found {quoted(split)}")
    found = data.splits[split]
    if found.masks is None:
        raise PrismaError(f"expected a task whose images have masks; found {data.name}, whose images have none")
    chosen = rows if isinstance(rows, slice) else torch.tensor(_rows_of(len(found.labels), rows), dtype=torch.long)
    names = data.kinds or data.labels
    return PatchLabels(_shares(_things(found, chosen), patch_size, len(names)), names)


def _rows_of(n: int, rows: Sequence[int] | Tensor) -> list[int]:
    """The same rows as a list. Raises PrismaError unless each is one of `n`; from -1 they count from the end."""
    wanted = rows.tolist() if isinstance(rows, Tensor) else list(rows)
    for row in wanted:
        if not isinstance(row, int | np.integer) or not -n <= row < n:
            raise PrismaError(f"expected rows from 0 to {n - 1:,}; found {quoted(row)}")
    return [int(row) for row in wanted]


def _things(split: Split, rows: slice | Tensor) -> Tensor:
    """[n, height, width], int64: 1 + the number of the name of what a pixel shows; 0 is nothing."""
    if split.objects is None or split.kinds is None:
        assert split.masks is not None, "checked before"
        return split.masks[rows] * (split.labels[rows] + 1)[:, None, None]
    objects, kinds = split.objects[rows].long(), split.kinds[rows]
    kinds = torch.cat([torch.full((len(kinds), 1), -1), kinds], 1) + 1
    return kinds.gather(1, objects.flatten(1)).view_as(objects)


def _shares(things_NHW: Tensor, patch_size: int | tuple[int, int], n_names: int) -> Tensor:
    """[n, patch row, patch column, name] of maps of 1 + the number of a name."""
    p, q = patch_sides(things_NHW, patch_size)
    n, h, w = things_NHW.shape[0], things_NHW.shape[1] // p, things_NHW.shape[2] // q
    patches = torch.arange(n * h * w, device=things_NHW.device).view(n, h, 1, w, 1)
    places = patches * (n_names + 1) + things_NHW.view(n, h, p, w, q)
    counts = places.flatten().bincount(minlength=n * h * w * (n_names + 1))
    return counts.view(n, h, w, n_names + 1)[..., 1:].float() / (p * q)


@dataclass(frozen=True)
class Segmentations:
    """Segmentations on disk: a PNG file for each picture, whose pixels have the class of number red + 256 x green.

    0 is no class, 1000 is not judged; k is `classes[k - 1]`. A map is resized and cut as its picture is, without
    mixing colours.
    """

    folder: Path
    files: tuple[str, ...]  # the paths in the folder
    classes: tuple[str, ...]
    transform: Transform  # of the model

    @classmethod
    def of_folder(
        cls, folder: str | Path, transform: Transform, classes: Sequence[str] | None = None
    ) -> "Segmentations":
        """The PNG files of a folder and its subfolders, sorted by path.

        Args:
            transform: the model's.
            classes: the name of class 1, 2, ...; by default the names of the subfolders, sorted, as in ImageNet-S.

        Raises:
            PrismaError: no such folder, no PNG file in it, or no class.
        """
        folder = given(folder)
        files = [path for path in picture_files(folder).files if path.suffix.lower() == ".png"]
        if not files:
            raise PrismaError(f"expected segmentations in {folder}, as PNG files; found none")
        paths = [path.relative_to(folder) for path in files]
        named = (
            tuple(classes)
            if classes is not None
            else tuple(sorted({path.parts[0] for path in paths if path.parent.name}))
        )
        if not named:
            raise PrismaError(f"expected a subfolder of {folder} for every class, or their names; found neither")
        return cls(folder, tuple(str(path) for path in paths), named, transform)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pictures: the path in the folder, without its ending."""
        return tuple(str(Path(file).with_suffix("")) for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def maps(self, rows: Sequence[int]) -> Tensor:
        """The class of every pixel that the model sees: [n, height, width], int64; 0 is none, or not judged.

        Raises:
            PrismaError: no such row; a file that is no picture; a number that is no class.
        """
        return torch.stack([self._map(self.folder / self.files[i]) for i in _rows_of(len(self), rows)])

    def _map(self, path: Path) -> Tensor:
        exact = replace(self.transform, interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3)  # in colour
        red, green, _ = (exact(path) * 255).round().long()
        numbers = red + 256 * green
        numbers[numbers == IGNORED] = 0
        if (largest := int(numbers.max())) > len(self.classes):
            raise PrismaError(f"expected classes 0 to {len(self.classes)} (or {IGNORED}) in {path}; found {largest}")
        return numbers

    def patch_labels(self, rows: Sequence[int], patch_size: int | tuple[int, int]) -> PatchLabels:
        """What the patches of some pictures show. Arguments and errors are those of `maps` and `patch_labels`."""
        return PatchLabels(_shares(self.maps(rows), patch_size, len(self.classes)), self.classes)
