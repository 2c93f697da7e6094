"""Inpainting: what an image might be where something was cut out, from the pixels around the hole.

Every pixel of the hole is the mean of its neighbours above, below, left and right; those outside of the hole are given:

    sum over neighbours y of x  (u(x) - u(y)) = 0        for every pixel x of the hole

It is the smoothest fill that there is (the discrete Laplace equation), with the colours at the rim of the hole and
without an edge there. It continues no texture and invents no background: a hole in a pattern is filled with a blur.

Sources: Bertalmio et al. 2000, Image Inpainting (filling from the rim); Żukowska et al. 2604.14477 (objects that are
segmented and inpainted as the corruption of circuits in vision transformers).
"""

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError


def inpainted(images: Tensor, holes: Tensor) -> Tensor:
    """Images whose holes are filled [..., height, width]; the other pixels are as they were.

    Args:
        images: [image, channel, (frame,) height, width].
        holes: boolean, of the same shape.

    Raises:
        PrismaError: a hole is a whole image, or scipy is not installed.
    """
    pictures, where = images.flatten(0, -3), holes.flatten(0, -3)
    if bool(where.flatten(1).all(1).any()):
        raise PrismaError("expected masks that leave some pixels of each image; found one that covers a whole image")
    filled = pictures.detach().cpu().double().numpy().copy()
    for picture, hole in zip(filled, where.cpu().numpy(), strict=True):
        if hole.any():
            picture[hole] = _harmonic(picture, hole)
    return torch.from_numpy(filled).view(images.shape).to(images)


def _harmonic(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The pixels of the hole, in raster order."""
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.linalg import spsolve
    except ImportError:
        raise PrismaError("inpainting needs scipy; found none: pip install scipy") from None
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())
    neighbours, given = np.zeros(hole.sum()), np.zeros(hole.sum())
    rows, columns = list[np.ndarray](), list[np.ndarray]()
    y, x = hole.nonzero()
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside = (y + dy >= 0) & (y + dy < hole.shape[0]) & (x + dx >= 0) & (x + dx < hole.shape[1])
        own, there = np.flatnonzero(inside), (y[inside] + dy, x[inside] + dx)
        neighbours[own] += 1
        known = ~hole[there]
        given[own[known]] += picture[there][known]
        rows.append(own[~known])
        columns.append(number[there][~known])
    at = np.concatenate(rows), np.concatenate(columns)
    all_rows, all_columns = (np.concatenate([part, np.arange(len(given))]) for part in at)
    values = np.concatenate([-np.ones(len(at[0])), neighbours])
    system = coo_array((values, (all_rows, all_columns)), shape=(len(given), len(given))).tocsc()
    return np.atleast_1d(spsolve(system, given))
