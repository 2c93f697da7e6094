"""The batch of each step: a pure function of the seed and the step, so that any batch can be rebuilt.

The numbers come from numpy's RandomState, whose streams never change (numpy NEP 19), so a recipe has the same batches
in every version and on every device.
"""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.data.task import Split
from prisma.data.transform import Transform, as_floats
from prisma.train.config import TrainConfig

WHOLE = slice(None)  # a batch
_ORDER, _MOVES = 0, 1  # separate streams of random numbers from one seed


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The indices of the images in the batch of `step`, of `n` images: [batch_size], int64.

    The permutations of all epochs are concatenated, and each step takes the next `batch_size` indices: every image is
    seen once per epoch, and a batch may contain the end of one epoch and the beginning of the next.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, within = np.divmod(places, n)
    chosen = [_permutation(n, seed, int(epoch))[within[epochs == epoch]] for epoch in np.unique(epochs)]
    return torch.from_numpy(np.concatenate(chosen))


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.RandomState((seed, _ORDER, epoch)).permutation(n).astype(np.int64)


def batch_moves(batch_size: int, config: TrainConfig, step: int) -> Tensor:
    """How the images of `step` move: [batch_size, 3], float32: pixels down, pixels right, degrees anticlockwise."""
    draws = np.random.RandomState((config.order_seed, _MOVES, step)).uniform(-1, 1, (batch_size, 3))
    return torch.from_numpy(draws * (config.shift, config.shift, config.turn)).float()


def move(images: Tensor, moves: Tensor) -> Tensor:
    """Each image [n, channel, height, width] shifted and turned about its centre by its row of moves [n, 3].

    Bilinear; pixels from beyond the image repeat its border.
    """
    (height, width), moves = images.shape[-2:], moves.to(images.dtype)
    down, right, turn = moves[:, 0] * 2 / height, moves[:, 1] * 2 / width, moves[:, 2] * math.pi / 180
    cos, sin = turn.cos(), turn.sin()
    rows = (cos, -sin * height / width, -right, sin * width / height, cos, -down)  # where each pixel comes from
    grid = F.affine_grid(torch.stack(rows, -1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def batch(
    data: Split, transform: Transform, config: TrainConfig, step: int, part: slice = WHOLE
) -> tuple[Tensor, Tensor]:
    """The batch of `step`: (normalised images [batch, channel, height, width], labels [batch]), on data's device.

    Args:
        part: take only these places of the batch.
    """
    chosen = batch_indices(len(data.labels), config.batch_size, config.order_seed, step)[part].to(data.labels.device)
    return transform.normalise(moved(data.images[chosen], config, step, part)), data.labels[chosen]


def moved(images: Tensor, config: TrainConfig, step: int, part: slice = WHOLE) -> Tensor:
    """The images of the batch of `step`, or of a part of it, in its order, moved as the recipe says."""
    if config.shift or config.turn:
        return move(as_floats(images), batch_moves(config.batch_size, config, step)[part].to(images.device))
    return images
