"""A latent as the number that a map explains, or that an image is optimised for.

`prisma.attribute(model, images, target=Latent(coder, 5))`, `prisma.features.visualize(model, Latent(coder, 5))`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.readings import Objective, Read
from prisma.checkpoint import weights_hash
from prisma.errors import PrismaError
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.belonging import expect_trained_on
from prisma.sparse.coders import CROSSCODER, Coder


@dataclass(frozen=True, eq=False)
class Latent(Objective):
    """How active a latent is: which pixels or patches is it about, which image drives it? `+ - * /` combine it.

    As a target of attribution its gradient is zero where it is not active, so ask about images in which it is. An image
    that is optimised climbs there what the latent lacks to be active: its pre-activation and, in coders that keep the k
    largest of a token or the largest of a group, less that of the latent that is kept in its place (a latent of small
    weights is kept only where the others are smaller still). The number is always how active it is: 0 says that no
    image was found in which it is.

    Attributes:
        coder: a coder of one site.
        index: the latent.
        token: at which token; None for the mean over tokens.
        site: where the coder reads, if its file names it otherwise.
        other_model: take a model with other weights than the coder was trained on.
        climbed: whether the gradient is that of what it lacks where the latent is not active.

    Raises:
        PrismaError: a crosscoder, or a latent that it does not have; where it is asked for, a model with other weights.
    """

    coder: Coder
    index: int
    token: int | None = None
    site: str | None = None
    other_model: bool = False
    climbed: bool = False

    def __post_init__(self) -> None:
        if len(self.coder.config.sites) > 1:
            raise PrismaError(f"expected a coder of one site; {CROSSCODER}")
        if not 0 <= self.index < self.coder.config.width:
            raise PrismaError(f"expected a latent from 0 to {self.coder.config.width - 1}; found {self.index}")

    @property
    def name(self) -> str:
        """`latent:5 of 1f0c96ab`: which latent, and a hash of its own weights."""
        coder, i = self.coder, self.index
        own = weights_hash({"enc": coder.W_enc[:, i], "bias": coder.bias[i : i + 1], "dec": coder.W_dec[i]})
        return f"latent:{i}{'' if self.token is None else f',token={self.token}'} of {own[:8]}"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.site or bare(self.coder.site),)

    @property
    def tokens(self) -> tuple[int, ...]:
        return () if self.token is None else (self.token,)

    def bound(self, read: Read) -> Objective:
        """The same, to be climbed."""
        return replace(self, climbed=True)

    def expect_fits(self, model: Any) -> None:
        expect_trained_on(self.coder, model, self.other_model)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]. Raises PrismaError: another width, or no such token."""
        (site,) = self.reads
        x = rows_of(acts[site], site)
        z = self.coder.encode(x)[..., self.index]
        if self.climbed:
            lacks = self._above_rival(self.coder.pre(x))
            z = z + (lacks - lacks.detach()) * (z == 0)
        if self.token is None:
            return z.mean(1)
        if not -z.shape[1] <= self.token < z.shape[1]:
            raise PrismaError(f"expected a token of {site} below {z.shape[1]}; found {self.token}")
        return z[:, self.token]

    def _above_rival(self, p: Tensor) -> Tensor:
        """Pre-activations [..., latent] -> how far this one is above what it must exceed, less a constant [...]."""
        own, config = p[..., self.index], self.coder.config
        if config.kind == "groupmax":
            size = config.width // (config.k or 1)
            first = self.index // size * size
            others, k = p[..., [i for i in range(first, first + size) if i != self.index]], 1
        elif config.kind in ("topk", "abstopk"):
            others = torch.cat([p[..., : self.index], p[..., self.index + 1 :]], -1)
            others, k = others.abs() if config.kind == "abstopk" else others, config.k or 1
        else:
            return own
        return own - others.topk(k).values[..., -1].relu() if k <= others.shape[-1] else own
