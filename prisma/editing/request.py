"""What every edit of a class begins with: which class of which model becomes which, and the images it may use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.editing.keys import class_of, covariances
from prisma.editing.rank_one import Covariance
from prisma.editing.weight_edit import LowRank, WeightEdit, source_of
from prisma.errors import PrismaError, quoted
from prisma.vit import ViT

OLD = 3000
"""How many images stand for all, where what an edit should keep is measured."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images of a class, with the shares of their patches that are object, and their places among all (`rows`)."""

    images: Tensor
    coverage: Tensor | None
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Request:
    """A class that is to be called by the name of another. `Request.of` checks it.

    All draws are functions of the seed, over all images, in whatever order those are given.
    """

    model: ViT
    images: Tensor
    labels: Tensor
    source: int
    target: int
    names: Sequence[str]
    keys: int
    coverage: Tensor | None
    seed: int

    @classmethod
    def of(
        cls,
        model: ViT,
        images: Tensor,
        labels: Tensor,
        source: int | str,
        target: int | str,
        names: Sequence[str] = (),
        keys: int = 64,
        coverage: Tensor | None = None,
        seed: int = 0,
    ) -> "Request":
        """The request, with the classes as numbers. Raises PrismaError as `edit_class`."""
        a, b = (class_of(name, model.config.n_classes, names) for name in (source, target))
        if a == b:
            raise PrismaError(f"expected two classes that differ; found {quoted(names[a] if names else source)} twice")
        if keys < 1:
            raise PrismaError(f"expected keys of at least 1; found {keys}")
        if len(images) != len(labels) or (coverage is not None and len(coverage) != len(images)):
            covered = "" if coverage is None else f", and coverage of {len(coverage)}"
            raise PrismaError(
                f"expected a label for each image; found {len(images)} images and {len(labels)} labels{covered}"
            )
        found = cls(model, images, labels, a, b, names, keys, coverage, seed)
        found._places(a, source)
        return found

    def layer(self, layer: int | None) -> int:
        """A layer; None is the last."""
        return self.model.config.n_layers - 1 if layer is None else layer

    def own(self, copies: int = 0) -> Drawn:
        """The images that give keys, and `copies` shifted ones of each."""
        if copies < 0:
            raise PrismaError(f"expected copies of at least 0; found {copies}")
        if copies and self.coverage is not None:
            raise PrismaError("expected no copies with coverage, which is of the images as they are; found copies")
        rows = self._some(self._places(self.source, self.source), self.keys)
        draw = torch.Generator().manual_seed(self.seed)
        images = [self.images[rows], *(_shifted(self.images[rows], draw) for _ in range(copies))]
        covered = None if self.coverage is None else self.coverage[rows].flatten(1)
        return Drawn(torch.cat(images), covered, tuple(rows.tolist()))

    def theirs(self) -> Tensor:
        """As many images of the target. Raises PrismaError if there are none."""
        return self.images[self._some(self._places(self.target, self.target), self.keys)]

    def others(self, n: int) -> Tensor:
        """Images of all classes but the one that is edited."""
        if n < 0:
            raise PrismaError(f"expected others of at least 0; found {n}")
        return self.images[self._some((self.labels != self.source).cpu().nonzero()[:, 0], n)]

    def old(self) -> Tensor:
        """Places of images that stand for all."""
        return self._some(torch.arange(len(self.images)), OLD)

    def covariance(self, layer: int, role: str) -> Covariance:
        """How the keys of a layer spread over images that stand for all."""
        rows = self.old()
        covered = None if self.coverage is None else self.coverage[rows]
        return covariances(self.model, self.images[rows], layer, (role,), coverage=covered)[role]

    def edit(self, method: str, parts: Sequence[LowRank], facts: dict[str, Any]) -> WeightEdit:
        """An edit that states what it is for."""
        between = {
            role: {"class": c, "name": self.names[c] if self.names else None}
            for role, c in (("from", self.source), ("to", self.target))
        }
        about = {"method": method, **between, "model": source_of(self.model), "seed": self.seed, **facts}
        return WeightEdit(tuple(parts), about)

    def _places(self, label: int, said: int | str) -> Tensor:
        places = (self.labels == label).cpu().nonzero()[:, 0]
        if not len(places):
            raise PrismaError(f"expected images of the class {quoted(said)}; found none among {len(self.labels):,}")
        return places

    def _some(self, places: Tensor, n: int) -> Tensor:
        """So many of the places, drawn by the seed, in their order."""
        draw = torch.Generator().manual_seed(self.seed)
        return places[torch.randperm(len(places), generator=draw)[:n]].sort().values


def _shifted(images: Tensor, draw: torch.Generator) -> Tensor:
    """Each image moved by up to an eighth of its sides; what comes in at an edge is reflected."""
    h, w = images.shape[-2:]
    dy, dx = max(h // 8, 1), max(w // 8, 1)
    padded = F.pad(images, (dx, dx, dy, dy), mode="reflect")
    tops = torch.randint(2 * dy + 1, (len(images),), generator=draw).tolist()
    lefts = torch.randint(2 * dx + 1, (len(images),), generator=draw).tolist()
    moved = [x[:, top : top + h, left : left + w] for x, top, left in zip(padded, tops, lefts, strict=True)]
    return torch.stack(moved)
