"""A latent as the number that a map explains, or that an image is optimised for.

`prisma.attribute(model, images, target=Latent(coder, 5))`, `prisma.features.visualize(model, Latent(coder, 5))`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from prisma.analysis.readings import Objective, Read
from prisma.checkpoint import weights_hash
from prisma.errors import PrismaError
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.coders import CROSSCODER, Coder


@dataclass(frozen=True, eq=False)
class Latent(Objective):
    """How active a latent is: which pixels or patches is it about, which image drives it? `+ - * /` combine it.

    As a target of attribution its gradient is zero where it is not active, so ask about images in which it is. An image
    that is optimised climbs its pre-activation there, until it is active; the number is always how active it is.

    Attributes:
        coder: a coder of one site.
        index: the latent.
        token: at which token; None for the mean over tokens.
        site: where the coder reads, if its file names it otherwise.
        climbed: whether the gradient is that of the pre-activation where the latent is not active.

    Raises:
        PrismaError: a crosscoder, or a latent that it does not have.
    """

    coder: Coder
    index: int
    token: int | None = None
    site: str | None = None
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

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]. Raises PrismaError: another width, or no such token."""
        (site,) = self.reads
        x = rows_of(acts[site], site)
        z = self.coder.encode(x)[..., self.index]
        if self.climbed:
            pre = self.coder.pre(x)[..., self.index]
            z = z + (pre - pre.detach()) * (z == 0)
        if self.token is None:
            return z.mean(1)
        if not -z.shape[1] <= self.token < z.shape[1]:
            raise PrismaError(f"expected a token of {site} below {z.shape[1]}; found {self.token}")
        return z[:, self.token]
