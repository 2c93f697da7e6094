"""Graphs of what units do on images: which are active together, and which move which.

    activation_graph    |Pearson correlation| of the activations of two units, over images and tokens
    gradient_graph      the mean over images and tokens of |d (sum over tokens of b_j) / d a_i|, for a unit b_j of a
                        layer and a unit a_i of the layer before it in the list

Weights say what could happen, these what does on the images. A unit that is constant has no edges.

Sources: Hod et al. 2110.08058 (correlations of activations); Golechha et al. 2502.02470 (modules of pretrained nets).
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from prisma.analysis.modularity.graph import Graph, joined
from prisma.analysis.modularity.unit_readings import Units
from prisma.bounds import expect_memory
from prisma.errors import PrismaError, expect_packages
from prisma.numbers import are_finite
from prisma.plain import uncompiled

GRAPHS = ("weights", "activations", "gradients")
"""What the edges of a graph may be: those of weights need no images."""
_CONSTANT = 1e-12  # of the mean square: below, a variance is rounding
BATCH = 64


@torch.no_grad()
def activation_graph(model: nn.Module, images: Tensor, layers: str | Iterable[str], *, batch: int = BATCH) -> Graph:
    """Which units are active together on these images? The graph of correlations, which `modularity` reads.

    Args:
        model: a vision transformer of Prisma, or any network of torch that is in `eval()`.
        images: what the model takes [image, ...], at least 2.
        layers: sites, such as "blocks.*.mlp.post"; of another network, names of modules. Of a convolution, a unit is a
            channel, with its mean over the picture.
        batch: images in one pass.

    Returns:
        The graph, with an edge for each pair of units within and between layers: the absolute correlation, from 0 to 1.

    Raises:
        PrismaError: a layer that there is not, layers with other numbers of tokens, fewer than 2 images, activations
            that are not finite, too many units for the memory of this machine, or scipy is missing.
    """
    expect_packages("scipy", extra="analysis")
    if len(images) < 2:
        raise PrismaError(f"expected at least 2 images, because a correlation needs them; found {len(images)}")
    units = Units.of(uncompiled(model), layers)
    sizes: dict[str, int] = {}
    mean = products = first = torch.zeros(())
    n = 0
    for some in images.split(batch):
        values = {name: units.of_images(name, x) for name, x in units.read(some).items()}
        if len({x.shape[:2] for x in values.values()}) > 1:
            places = {name: x.shape[1] for name, x in values.items()}
            raise PrismaError(f"expected layers with the same number of tokens; found {places}")
        sizes = sizes or {name: x.shape[2] for name, x in values.items()}
        rows = torch.cat([x.flatten(0, 1) for x in values.values()], 1).double().cpu()
        if not n:
            expect_memory(8 * 3 * rows.shape[1] ** 2, "the correlations of all units")
            first = rows.mean(0)  # so that what units have in common is not squared
        rows = rows - first
        mean, products, n = mean + rows.sum(0), products + rows.T @ rows, n + len(rows)
    covariance = products / n - torch.outer(mean / n, mean / n)
    variance = covariance.diagonal()
    alive = variance > _CONSTANT * (variance + first.square())
    scale = torch.where(alive, variance.clamp(min=0), torch.inf).rsqrt()
    correlation = (covariance * torch.outer(scale, scale)).abs().clamp(max=1).numpy()
    return _of_correlations(correlation, sizes)


def _of_correlations(correlation: np.ndarray, sizes: dict[str, int]) -> Graph:
    np.fill_diagonal(correlation, 0)
    found = Graph.of((correlation + correlation.T) / 2, sizes)
    return Graph(found.layers, found.edges, metadata={"graph": "activations"})


def gradient_graph(model: nn.Module, images: Tensor, layers: str | Iterable[str], *, batch: int = BATCH) -> Graph:
    """Which units move which units of the next layer, on these images? The graph of gradients, for `modularity`.

    It costs a backward pass, from one layer to the one before, for each unit of every layer but the first.

    Args:
        model, images, batch: as in `activation_graph`; one image is enough.
        layers: as in `activation_graph`, at least two, in the order in which they run.

    Returns:
        The graph, with edges between each layer and the next.

    Raises:
        PrismaError: fewer than two layers, one that does not depend on the one before, gradients that are not finite;
            or as `activation_graph`.
    """
    expect_packages("scipy", extra="analysis")
    units = Units.of(uncompiled(model), layers)
    if len(units.names) < 2 or not len(images):
        given = f"{list(units.names)} and {len(images)} images"
        raise PrismaError(f"expected at least two layers, and images; found {given}")
    sums: dict[tuple[str, str], Tensor] = {}
    with torch.inference_mode(False), torch.enable_grad():
        for some in images.split(batch):
            values = units.read(some.detach().clone().requires_grad_(some.is_floating_point()))
            for one, other in pairwise(units.names):
                found = _moved(units, one, values[one], other, values[other])
                sums[one, other] = sums[one, other] + found if (one, other) in sums else found
    weights = {pair: (total / len(images)).numpy() for pair, total in sums.items()}
    sizes = {
        name: size for (one, other), w in weights.items() for name, size in zip((one, other), w.shape, strict=True)
    }
    return joined(sizes, weights, metadata={"graph": "gradients"})


def _moved(units: Units, one: str, before: Tensor, other: str, after: Tensor) -> Tensor:
    """[unit before, unit after]: the sum over images of the mean over places of the absolute gradient."""
    totals, rows = units.by_place(other, after).sum((0, 1)), []
    for total in totals:
        (row,) = (
            torch.autograd.grad(total, before, retain_graph=True, allow_unused=True) if total.requires_grad else (None,)
        )
        if row is None:
            raise PrismaError(f"expected each layer to depend on the one before; found that {other} does not on {one}")
        rows.append(units.by_place(one, row.detach()).double().abs().mean(1).sum(0))
    found = torch.stack(rows, 1).cpu()
    if not are_finite([found]):
        raise PrismaError(f"expected finite gradients; found others, of {other} on {one}")
    return found
