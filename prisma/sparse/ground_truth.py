"""Coders on data whose factors are known: does each value of a factor have a latent, and does a latent have one factor?

Correlations with the factors of a generated data set, matched one to one, and the response of latents to images that
differ in one attribute alone. Both are compared with baselines (`evaluation`): random directions correlate too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.data.task import Factor
from prisma.errors import PrismaError
from prisma.runs import Model
from prisma.sparse.activations import Source
from prisma.sparse.coders import Coder
from prisma.sparse.inputs import read_by, source_for
from prisma.sparse.metrics import Recovery, matched

POOLS = ("max", "mean")


@torch.no_grad()
def latents_of_images(
    coder: Coder, model: Model, images: Tensor, *, tokens: str | Sequence[str] = "all", pool: str = "max"
) -> Tensor:
    """[image, latent]: how active each latent is in each image, at its most active token or on average.

    Raises:
        PrismaError: another pool, or images, tokens or a site that the model does not have.
    """
    if pool not in POOLS:
        raise PrismaError(f"expected pool to be one of {', '.join(POOLS)}; found {pool!r}")
    return pooled(coder, source_for(coder, model, images, tokens), pool)


@torch.no_grad()
def pooled(coder: Coder, source: Source, pool: str = "max") -> Tensor:
    """[image, latent]: the same, of the images of a source."""
    found = []
    for start in range(0, len(source), 64):
        acts = source.read(range(start, min(start + 64, len(source))))
        z = coder.encode(read_by(coder, acts))
        found.append(z.abs().amax(1) if pool == "max" else z.mean(1))
    return torch.cat(found)


def indicators(factors: Mapping[str, Tensor], known: Sequence[Factor]) -> tuple[Tensor, tuple[str, ...]]:
    """([value, image], names): for each value of a named factor whether an image has it; a number is its own row."""
    rows, names = [], []
    for factor in known:
        values = factors[factor.name]
        if factor.names:
            for i, name in enumerate(factor.names):
                rows.append((values == i).double())
                names.append(f"{factor.name}={name}")
        else:
            rows.append(values.double())
            names.append(factor.name)
    return torch.stack(rows), tuple(names)


def factor_recovery(z: Tensor, known: Tensor) -> Recovery:
    """How well latents [image, latent] recover known values [value, image]: by |correlation|, each matched with one.

    `mcc` near 1: each value has a latent that is active when an image has it, and not otherwise.

    Raises:
        PrismaError: other numbers of images.
    """
    if z.shape[0] != known.shape[1]:
        raise PrismaError(f"expected latents and factors of the same images; found {z.shape[0]} and {known.shape[1]}")
    return matched(correlations(known.to(z.device), z.T).abs())


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """[n, m]: correlation of each row of a with each row of b; 0 with a row that is constant."""
    a, b = ((x.double() - x.double().mean(1, keepdim=True)) for x in (a, b))
    sizes = a.norm(dim=1)[:, None] * b.norm(dim=1)
    return torch.where(sizes > 0, a @ b.T / sizes.clamp_min(1e-300), 0.0)


@dataclass(frozen=True)
class Response:
    """How latents respond to images in which one attribute was changed.

    Attributes:
        attributes: their names.
        change: [attribute, latent], mean |change| over pairs, of each image's most active token.
    """

    attributes: tuple[str, ...]
    change: Tensor

    @property
    def selectivity(self) -> Tensor:
        """[latent]: the largest response as a share of all: 1 is a latent of one attribute; NaN without a response."""
        return self.change.max(0).values / self.change.sum(0)

    @property
    def attribute(self) -> Tensor:
        """[latent]: the index of the attribute to which it responds most."""
        return self.change.argmax(0)


def attribute_response(
    coder: Coder, model: Model, pairs: Mapping[str, tuple[Tensor, Tensor]], *, tokens: str | Sequence[str] = "all"
) -> Response:
    """To which attribute does each latent respond, if the generator changes one at a time?

    Args:
        pairs: name of the attribute -> (images, the same images with this attribute changed).
    """
    rows = []
    for first, second in pairs.values():
        before, after = (latents_of_images(coder, model, x, tokens=tokens) for x in (first, second))
        rows.append((after - before).abs().mean(0))
    return Response(tuple(pairs), torch.stack(rows))
