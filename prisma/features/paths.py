"""Does an optimised image travel through a network as natural images do? The check of Geirhos et al.

A visualisation can drive a unit by a path that no natural image takes, and then says nothing about what the unit does
on those. So the activations of all layers are compared by rank correlation: those of the optimum with those of the
unit's top images. Beside it stand the top images with each other, and with other images of the data. An optimum on the
natural path has about as high a correlation as the former.

Source: Geirhos et al. 2306.04719, Don't trust your eyes: on the (un)reliability of feature visualizations.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.features.subjects import Subject
from prisma.numbers import exact


def ranks(x: Tensor) -> Tensor:
    """[row, number] -> the rank of each number in its row; equal numbers share the mean of their ranks."""
    x = x.contiguous()
    order = x.sort(dim=1).values
    left, right = (torch.searchsorted(order, x, right=side) for side in (False, True))
    return (left + right + 1).double() / 2


def scores(x: Tensor) -> Tensor:
    """[row, number] -> its centred ranks at unit length: products of rows are Spearman's rank correlations.

    A row of equal numbers becomes zeros.
    """
    found = ranks(x)
    found -= found.mean(1, keepdim=True)
    return F.normalize(found, dim=1, eps=1e-30)


@torch.no_grad()
def path_check(
    subject: Subject, optima: Tensor, tops: Sequence[Tensor], others: Tensor, sites: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Rank correlations of activations, layer by layer.

    Args:
        optima: [n, channel, height, width] in [0, 1].
        tops: for each of them, its top images [k, channel, height, width] in [0, 1].
        others: images of the data set [m, channel, height, width] in [0, 1], as they come.
        sites: from the input to the output; by default the subject's own.

    Returns:
        `path`: of the optimum with its top images; `natural`: of the top images with each other; `other`: of the top
        images with other images. Each is [n, layer]; `natural` is NaN where there is one top image.
    """
    sites = list(subject.depth if sites is None else sites)
    means = [x.mean(0) for x in _scores(subject, others, sites)]  # a mean of correlations is that with the mean
    found: dict[str, list[Tensor]] = {"path": [], "natural": [], "other": []}
    for optimum, top in zip(optima, tops, strict=True):
        layers = zip(_scores(subject, torch.cat([optimum[None].to(top), top]), sites), means, strict=True)
        rows = [_compared(x[0], x[1:], other) for x, other in layers]
        for name, values in zip(found, zip(*rows, strict=True), strict=True):
            found[name].append(torch.stack(values))
    return {name: torch.stack(rows).float().cpu() for name, rows in found.items()}


def _compared(optimum: Tensor, tops: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(path, natural, other) of one layer."""
    pairs, k = tops @ tops.T, len(tops)
    natural = (pairs.sum() - pairs.diagonal().sum()) / (k * (k - 1)) if k > 1 else pairs.new_tensor(torch.nan)
    return (tops @ optimum).mean(), natural, (tops @ other).mean()


def _scores(subject: Subject, pixels: Tensor, sites: Sequence[str]) -> list[Tensor]:
    acts = subject.read(pixels.to(subject.device), sites)
    return [scores(exact(acts[site]).flatten(1)) for site in sites]
