"""Centring and scaling: the coordinates in which coders are trained, and the way back to raw activations."""

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.sparse.coders import Coder


@dataclass(frozen=True)
class Scaling:
    """(x - mean) * scale has numbers of about 1; `scale` is one number for each site.

    Attributes:
        mean, scale: [d].
        gamma: |mean| / spread: where it is far above 1, latents die unless the mean is taken away (2605.31518).
    """

    mean: Tensor
    scale: Tensor
    gamma: float

    @classmethod
    def of(cls, x: Tensor, site: str) -> "Scaling":
        """That of tokens [N, d]. Raises PrismaError: they are all the same."""
        mean = x.double().mean(0)
        spread = math.sqrt((x - mean).square().sum(-1).mean().item())
        size = mean.norm().item()
        if not spread > 1e-9 * size:
            raise PrismaError(
                f"expected activations at {site} that differ from token to token; found {len(x):,} equal ones"
            )
        return cls(mean.to(x.dtype), torch.full_like(x[0], math.sqrt(x.shape[-1]) / spread), size / spread)

    @classmethod
    def side_by_side(cls, parts: "list[Scaling]") -> "Scaling":
        """That of activations of several sites side by side; its gamma is the largest."""
        mean, scale = (torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "scale"))
        return cls(mean, scale, max(part.gamma for part in parts))

    @property
    def unit(self) -> float:
        """What one unit of a latent is worth: the scale, of several sites their mean."""
        low, high = self.scale.aminmax()
        return low.item() if low == high else self.scale.mean().item()

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


@torch.no_grad()
def of_raw_activations(coder: Coder, x: Scaling, y: Scaling | None = None) -> Coder:
    """The coder of raw activations that does what this one does with scaled ones: the same latents are active.

    Latents are counted in units of the output, so that directions keep their length. Those of several sites, which have
    scales of their own, do so on average.

    Args:
        x: how the input was scaled.
        y: how the output was scaled; None: as the input.
    """
    new = deepcopy(coder).requires_grad_(False)
    y = x if y is None else y
    new.W_enc.mul_(x.scale[:, None] / y.unit)
    new.W_dec.mul_(y.unit / y.scale)
    new.b_dec.div_(y.scale).add_(y.mean)
    for name in ("b_enc", "b_gate", "b_mag", "threshold"):
        if hasattr(new, name):
            getattr(new, name).div_(y.unit)
    if not coder.config.centred:
        shift = x.mean @ new.W_enc
        if coder.kind == "gated":
            new.b_gate -= shift
            new.b_mag -= shift * new.r_mag.exp()
        else:
            new.b_enc -= shift
        if coder.config.skip:
            new.W_skip.mul_(x.scale / y.scale[:, None])
            new.b_dec.sub_(new.W_skip @ x.mean)
    return new
