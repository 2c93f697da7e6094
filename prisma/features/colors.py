"""Colours whose axes are independent in the data: what is optimised, and the pixels that it stands for.

Pixels are `sigmoid(x M + m)`, where m is the mean of the pictures' logits and M the symmetric root of the covariance of
their channels. So x of unit variance has the colours of the pictures, and no gradient prefers a colour that they have
seldom. Without pictures M is one and m is grey.

Source: Olah et al. 2017, Feature Visualization (colour decorrelation), with the covariance of the data at hand.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import PrismaError

CLIP = 0.02  # pixels are kept this far from 0 and 1 before their logit
FLOOR = 0.03  # the smallest spread of a colour, as a share of the largest: no colour is out of reach
MOST = 200_000  # pixels that are looked at


@dataclass(frozen=True, eq=False)
class Colors:
    """The channels of pixels as independent colours.

    Attributes:
        mean: [channel], of the logits of pixels.
        root: [channel, channel], from independent colours to logits.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def plain(cls, channels: int) -> "Colors":
        """Each channel for itself, around grey."""
        return cls(torch.zeros(channels), torch.eye(channels))

    @classmethod
    def of(cls, pictures: Tensor) -> "Colors":
        """Those of pictures [n, channel, height, width] in [0, 1].

        Raises:
            PrismaError: they are something else, or all of one colour.
        """
        logits = logit(expect_pictures(pictures)).movedim(1, -1).flatten(0, 2)
        logits = logits[:: max(1, len(logits) // MOST)].double()
        mean = logits.mean(0)
        values, axes = torch.linalg.eigh((logits - mean).T @ (logits - mean) / len(logits))
        if values[-1] <= 1e-8:
            raise PrismaError("expected pictures with more than one colour; found the same pixel everywhere")
        spread = values.clamp(min=0).sqrt().clamp(min=FLOOR * values[-1].sqrt().item())
        return cls(mean.float(), (axes * spread @ axes.T).float())

    def pixels(self, x: Tensor) -> Tensor:
        """Independent colours [n, channel, height, width] -> pixels in [0, 1]."""
        return torch.sigmoid(torch.einsum("nchw,cd->ndhw", x, self.root.to(x)) + self.mean.to(x)[:, None, None])

    def colors(self, pixels: Tensor) -> Tensor:
        """The inverse of `pixels`; pixels closer than .02 to 0 or 1 are moved there."""
        x = logit(pixels) - self.mean.to(pixels)[:, None, None]
        return torch.einsum("nchw,cd->ndhw", x, torch.linalg.inv(self.root.double()).to(x))


def logit(pixels: Tensor) -> Tensor:
    """The inverse of the sigmoid, of pixels that are kept away from its ends."""
    return torch.logit(pixels.clamp(CLIP, 1 - CLIP))


def expect_pictures(pictures: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """The pictures as floats. Raises PrismaError unless they are [n, channel, height, width] in [0, 1]."""
    fits = isinstance(pictures, Tensor) and pictures.ndim == 4 and len(pictures) and pictures.is_floating_point()
    if not fits or (shape is not None and tuple(pictures.shape[1:]) != tuple(shape)):
        wanted = "n, channel, height, width" if shape is None else f"n, {', '.join(map(str, shape))}"
        found = list(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise PrismaError(f"expected pictures [{wanted}] as floats; found {found}")
    low, high = pictures.aminmax()
    if not (low >= 0 and high <= 1):
        raise PrismaError(f"expected pictures in [0, 1], before normalisation; found {low:.3g} to {high:.3g}")
    return pictures
