"""Objectives of an image beside another: what a network shares between them, and how far they are apart.

The other picture is given in [0, 1]; its activations are read once, before the first step.

Sources: Mordvintsev et al. 2018, Differentiable Image Parameterizations (caricature, style transfer by an image's own
parameterisation); Gatys et al. 1508.06576 (content and Gram matrices).

Shapes: B image, T position, F feature.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prisma.analysis.readings import Objective, Read, features_at
from prisma.errors import PrismaError
from prisma.features.objectives import AtSite, powered
from prisma.features.subjects import PIXELS


@dataclass(frozen=True, eq=False)
class _Beside(AtSite):
    """An objective that compares a site with that of another picture.

    Attributes:
        picture: [channel, height, width] in [0, 1].
        where, head: as of `Channel`.
    """

    picture: Tensor
    where: str | int = "patches"
    head: int | None = None
    known: Tensor | None = None  # [1, position, feature]: the features of the picture, once they were read

    def bound(self, read: Read) -> Objective:
        """With the features of the picture. Raises PrismaError: it is no picture of the size that is optimised."""
        with torch.no_grad():
            return replace(self, known=self._features(read(self.picture[None], self.reads)))

    def _features(self, acts: Mapping[str, Tensor]) -> Tensor:
        return features_at(acts, self.site, self.where, self.head)

    def _pair(self, acts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.known is None:
            raise PrismaError(f"expected an objective whose picture was read; found {type(self).__name__} before that")
        return self._features(acts), self.known


@dataclass(frozen=True, eq=False)
class Caricature(_Beside):
    """More of what a network sees in a picture: the dot product of the features, times their cosine to a power.

    Attributes:
        power: of the cosine.
    """

    power: float = 1.0

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        x, known = (features.flatten(1) for features in self._pair(acts))
        length = known.norm().clamp(min=torch.finfo(x.dtype).tiny)
        return powered((x * known).sum(1) / length, x.norm(dim=1), self.power)


@dataclass(frozen=True, eq=False)
class Content(_Beside):
    """Minus the mean distance of the features from those of a picture, position by position; 0 is the same content."""

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        x, known = self._pair(acts)
        return -(x - known).abs().mean((1, 2))


@dataclass(frozen=True, eq=False)
class Style(_Beside):
    """Minus the mean distance of the Gram matrix of the features, `F^T F / T`, from that of a picture; 0: its style."""

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        x, known = (gram(features) for features in self._pair(acts))
        return -(x - known).abs().mean((1, 2))


def gram(x_BTF: Tensor) -> Tensor:
    """[batch, feature, feature]: which features occur together, wherever."""
    return x_BTF.transpose(1, 2) @ x_BTF / x_BTF.shape[1]


@dataclass(frozen=True, eq=False)
class Distance(Objective):
    """The root mean square of an image's difference from a picture, in pixels of [0, 1]: subtract it to stay near.

    Attributes:
        picture: [channel, height, width] in [0, 1].
    """

    picture: Tensor

    @property
    def reads(self) -> tuple[str, ...]:
        return (PIXELS,)

    def bound(self, read: Read) -> Objective:
        """The same. Raises PrismaError: it is no picture of the size that is optimised."""
        read(self.picture[None], self.reads)
        return self

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        difference = acts[PIXELS] - self.picture.to(acts[PIXELS])
        return (difference.square().mean((1, 2, 3)) + 1e-8).sqrt()


@dataclass(frozen=True)
class TotalVariation(Objective):
    """The mean absolute difference between neighbouring pixels, down and across: subtract it for smooth images."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (PIXELS,)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        return total_variation(acts[PIXELS])


def total_variation(pixels: Tensor) -> Tensor:
    """[n]: the mean absolute difference between neighbouring pixels of [n, channel, height, width]."""
    down, across = pixels.diff(dim=-2), pixels.diff(dim=-1)
    return down.abs().mean((1, 2, 3)) + across.abs().mean((1, 2, 3))
