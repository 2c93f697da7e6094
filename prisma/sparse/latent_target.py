"""A latent as the number that a map explains: `prisma.attribute(model, images, target=Latent(coder, 5))`."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from prisma.errors import PrismaError
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.coders import Coder


@dataclass(frozen=True, eq=False)
class Latent:
    """How active a latent is, as a target of attribution: which pixels or patches is it about?

    Its gradient is zero where it is not active, so ask about images in which it is.

    Attributes:
        coder: a coder of one site.
        index: the latent.
        token: at which token; None for the mean over tokens.
        site: where the coder reads, if its file names it otherwise.

    Raises:
        PrismaError: a crosscoder, or a latent that it does not have.
    """

    coder: Coder
    index: int
    token: int | None = None
    site: str | None = None

    def __post_init__(self) -> None:
        if len(self.coder.config.sites) > 1:
            raise PrismaError("expected a coder of one site; found a crosscoder, which reads several at once")
        if not 0 <= self.index < self.coder.config.width:
            raise PrismaError(f"expected a latent from 0 to {self.coder.config.width - 1}; found {self.index}")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.site or bare(self.coder.site),)

    @property
    def tokens(self) -> tuple[int, ...]:
        return () if self.token is None else (self.token,)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]. Raises PrismaError: another width, or no such token."""
        (site,) = self.reads
        z = self.coder.encode(rows_of(acts[site], site))[..., self.index]
        if self.token is None:
            return z.mean(1)
        if not -z.shape[1] <= self.token < z.shape[1]:
            raise PrismaError(f"expected a token of {site} below {z.shape[1]}; found {self.token}")
        return z[:, self.token]
