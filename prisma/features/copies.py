"""Objectives between the copies of one target: several images that are to differ, to agree, or to lead into each other.

`visualize(..., copies=4)` optimises four images for each target, and these objectives see those alone.

Source: Olah et al. 2017, Feature Visualization (diversity, interpolation, alignment).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.readings import Objective, Read, Reading, features_at
from prisma.errors import PrismaError
from prisma.features.objectives import AtSite
from prisma.features.references import gram


@dataclass(frozen=True)
class Diversity(AtSite):
    """How different the copies are: minus the mean cosine of the Gram matrices of an image and of the other copies."""

    where: str | int = "patches"
    head: int | None = None

    @property
    def per_image(self) -> bool:
        return False

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[copy]: from -1, all alike, to 0 and above."""
        n, x = _several(acts, self.reads[0]), features_at(acts, self.site, self.where, self.head)
        grams = F.normalize(gram(x).flatten(1), dim=1)
        cosines = grams @ grams.T
        return -(cosines.sum(1) - cosines.diagonal()) / (n - 1)


@dataclass(frozen=True)
class Alignment(AtSite):
    """How alike neighbouring copies are at a site: minus the mean square difference, half as much for each step apart.

    At the site `pixels` it keeps an interpolation from jumping.
    """

    where: str | int = "all"
    head: int | None = None
    reach: int = 4  # copies that are further apart than this are not compared

    @property
    def per_image(self) -> bool:
        return False

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[copy]."""
        n, x = _several(acts, self.reads[0]), features_at(acts, self.site, self.where, self.head).flatten(1)
        apart = (torch.arange(n)[:, None] - torch.arange(n)).abs()
        weight = torch.where((apart > 0) & (apart <= self.reach), 0.5 ** apart.double(), 0.0).to(x)
        squares = (x[:, None] - x[None]).square().mean(-1)
        return -(weight * squares).sum(1)


@dataclass(frozen=True)
class Interpolation(Objective):
    """From one objective to another along the copies: the first copy is for `first` alone, the last for `last`."""

    first: Reading
    last: Reading

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.first.reads, *self.last.reads)))

    @property
    def per_image(self) -> bool:
        return False

    def bound(self, read: Read) -> Objective:
        """With what both need of pictures."""
        ends = {n: x.bound(read) for n, x in vars(self).items() if isinstance(x, Objective)}
        return replace(self, **ends)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[copy]."""
        first, last = self.first.value(acts), self.last.value(acts)
        share = torch.linspace(0, 1, _several(acts, self.reads[0])).to(first)
        return (1 - share) * first + share * last


def _several(acts: Mapping[str, Tensor], site: str) -> int:
    """How many copies there are. Raises PrismaError: fewer than two."""
    if (n := len(acts[site])) < 2:
        raise PrismaError(f"expected at least two copies of a target to compare; found {n}: use copies=")
    return n
