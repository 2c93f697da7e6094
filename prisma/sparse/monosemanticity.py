"""Are the images on which a latent is active alike, and is it active on patches that lie together?"""

import torch
from torch import Tensor

from prisma.errors import PrismaError


def monosemanticity(z: Tensor, embeddings: Tensor, *, centred: bool = True) -> Tensor:
    """[latent]: how alike the images are on which a latent is active (Pach et al. 2504.02821).

    The mean cosine of the embeddings of all pairs of images, weighted by the product of their activations, which are
    scaled to [0, 1] for each latent. Near 0 it is active on images that are no more alike than others; NaN for a latent
    that is the same on all, or active on one image alone, which has no pairs. Use embeddings of another model than the
    one that is explained; one image far more active than the others rules the number.

    Args:
        z: [image, latent], such as `latents_of_images`.
        embeddings: [image, e] of an independent model.
        centred: take away the mean cosine of all pairs, which depends on the embedding; the paper does not.

    Raises:
        PrismaError: other numbers of images, or fewer than two.
    """
    if len(z) != len(embeddings) or len(z) < 2:
        raise PrismaError(
            f"expected activations and embeddings of two images or more; found {len(z)} and {len(embeddings)}"
        )
    e = torch.nn.functional.normalize(embeddings.double(), dim=1)
    low, high = z.double().aminmax(dim=0)
    a = (z.double() - low) / (high - low)
    squares = a.square().sum(0)
    alike = ((a.T @ e).square().sum(1) - squares) / 2  # of all pairs, without a loop over them
    pairs = (a.sum(0).square() - squares) / 2
    found = torch.where((a > 0).sum(0) > 1, alike / pairs, torch.nan)
    return found - _mean_cosine(e) if centred else found


def _mean_cosine(e: Tensor) -> Tensor:
    """The mean cosine of all pairs of unit vectors [n, e]."""
    n = len(e)
    return (e.sum(0).square().sum() - n) / (n * (n - 1))


def morans_i(maps: Tensor) -> Tensor:
    """[n]: whether the values of maps [n, row, column] lie together: 1 in one piece, 0 at random, -1 as a chessboard.

    Each patch has up to eight neighbours with equal weights. NaN for a map that is the same everywhere.

    Raises:
        PrismaError: not maps of at least two patches.
    """
    if maps.ndim != 3 or maps.shape[1] * maps.shape[2] < 2:
        raise PrismaError(f"expected maps [n, row, column] of at least two patches; found {list(maps.shape)}")
    d = maps.double() - maps.double().mean((1, 2), keepdim=True)
    together, weights = torch.zeros(len(maps), dtype=d.dtype, device=d.device), 0
    height, width = maps.shape[1:]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        first = d[:, : height - down, max(0, -right) : width - max(0, right)]
        second = d[:, down:, max(0, right) : width + min(0, right)]
        together += 2 * (first * second).sum((1, 2))
        weights += 2 * first[0].numel()
    return height * width / weights * together / d.square().sum((1, 2))
