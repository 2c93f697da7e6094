"""Subspaces of the vectors at a place, as orthonormal columns R [feature, direction]; and exchanges within them.

Shapes: N vector, F feature, K direction.
"""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from prisma.analysis.directions.places import Place
from prisma.circuits import neuron_weights, stream_weights
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.pretrained.zero_shot import PromptHead
from prisma.vit import ViT

SMALL = 1e-5
"""Directions below this share of the largest singular value are none."""


def exchanged(base: Tensor, source: Tensor, basis_FK: Tensor) -> Tensor:
    """The base's vectors [..., feature] with the source's components within a subspace: b + (s - b) R R^T."""
    return base + ((source - base) @ basis_FK) @ basis_FK.mT


def random_subspace(features: int, dim: int, generator: torch.Generator) -> Tensor:
    """A subspace of any direction with the same probability [feature, direction], float64."""
    return torch.linalg.qr(torch.randn(features, dim, generator=generator, dtype=torch.float64)).Q


def principal_subspace(vectors_NF: Tensor, dim: int) -> Tensor:
    """The directions of the largest variance [feature, direction], float64."""
    x = vectors_NF.detach().double()
    centred = x - x.mean(0)
    return torch.linalg.eigh(centred.mT @ centred).eigenvectors.flip(1)[:, :dim]


def span_of(vectors: Tensor, least: float = 0.0) -> Tensor:
    """An orthonormal basis [feature, direction] of the span of columns [feature, any], float64.

    Args:
        least: the smallest singular value that counts; in any case it is a share `SMALL` of the largest.
    """
    u, size, _ = torch.linalg.svd(vectors.detach().double(), full_matrices=False)
    return u[:, size > (SMALL * size.max()).clamp(min=max(least, 1e-300))]


def overlap(first_FK: Tensor, second_FK: Tensor) -> Tensor:
    """The squared cosines of the principal angles between two subspaces, the largest first: 1 is shared."""
    return torch.linalg.svdvals(first_FK.double().mT @ second_FK.double()).square().clamp(max=1)


def what_is_read(model: ViT, place: Place) -> Tensor | None:
    """The directions of a place that the linear map after it reads [feature, direction].

    What is at a right angle to all of them has no effect, whatever its value. None where no linear map alone reads the
    place, or where the part that does carries something of its own, such as a hook.
    """
    with suppress(PrismaError):
        weight = _next_map(model, place)
        return None if weight is None else span_of(exact(weight))
    return None


def _next_map(model: ViT, place: Place) -> Tensor | None:
    """The matrix [feature, any] by which alone the rest of the model reads a place. Raises PrismaError: not plain."""
    c, names = model.config, place.site.split(".")
    if names[2:] == ["mlp", "post"] and not c.norm_post:
        return neuron_weights(model, int(names[1]), ln="none")
    if names[2:] == ["attn", "z"] and not c.norm_z and place.head is not None:
        return stream_weights(model, int(names[1]), ln="none")["W_O"][place.head]
    if place.site == "pooled" or (place.site == "ln_final" and not c.norm_pooled and c.pool in ("class", "mean")):
        head: Any = model.readout.head
        parts = ["readout", "readout.head", *["readout.head.projection"] * isinstance(head, PromptHead)]
        expect_plain(model, parts, "what the head reads")
        linear = head.projection if isinstance(head, PromptHead) else head
        return linear.weight.mT if isinstance(linear, nn.Linear) else None
    return None
