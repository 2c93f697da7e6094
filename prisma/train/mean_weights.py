"""A running mean of the weights (EMA), which is smoother than the weights themselves.

After the update of step t the mean moves towards the weights by a share of the way, 1 - min(ema, (1 + t) / (10 + t)):
at the beginning it follows fast, so that the first weights do not weigh on it for long; later `ema` is its decay.
"""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor

from prisma.train.config import TrainConfig
from prisma.vit import ViT


def mean_of(model: ViT, config: TrainConfig) -> ViT | None:
    """A model with the mean at step 0, which is the first weights; None if the recipe has no mean."""
    return deepcopy(model).requires_grad_(False) if config.ema else None


def share_of(config: TrainConfig, step: int) -> float:
    """How far the mean moves towards the weights after the update of `step`, as a share of the way."""
    return 1 - min(config.ema, (1 + step) / (10 + step))


def follow(mean: ViT | None, model: ViT, share: float) -> None:
    """Move the mean, if there is one, towards the weights of a model."""
    if mean is not None:
        move_to(mean.parameters(), model.parameters(), share)


@torch.no_grad()
def move_to(means: Iterable[Tensor], weights: Iterable[Tensor], share: float | Tensor) -> None:
    """Move each mean towards its weights in place. Nothing happens where there are no means."""
    for mean, weight in zip(means, weights, strict=False):
        mean.lerp_(weight, share.to(mean.dtype) if isinstance(share, Tensor) else share)
