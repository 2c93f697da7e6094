"""Loss and accuracy of a model, or whatever else its objective measures."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.train.machine import is_out_of_memory
from prisma.train.objectives import CLASSIFICATION, Objective

MOST = 1024  # images in one pass
CACHED = 8 * 2**20  # bytes of the largest activation of a pass on a CPU: above, its caches do not hold it


def evaluate(
    learner: nn.Module,
    images: Tensor,
    targets: Tensor,
    batch: int | None = None,
    objective: Objective = CLASSIFICATION,
    draws: Tensor | None = None,
) -> tuple[float, ...]:
    """The measures of an objective: by default (mean cross-entropy in nats, accuracy) of a ViT.

    Args:
        learner: what answers: a ViT, or the objective's learner.
        images: normalised, [n, channel, height, width].
        targets: of the images, as the objective has them: [n] classes.
        batch: the largest number of images in one pass; by default `images_per_pass`.
        draws: what is drawn for each image; by default as at every checkpoint.
    """
    batch = batch or images_per_pass(cast(ViTConfig, learner.config), images.device.type)
    return evaluate_each(lambda *inputs: learner(*inputs)[None], images, targets, batch, objective, draws)[0]


def images_per_pass(config: ViTConfig, device: str) -> int:
    """How many images a pass of evaluation has: as many as are fast."""
    if device != "cpu":
        return MOST
    per_image = 4 * config.n_tokens * max(config.d_model, config.d_mlp)
    return max(1, min(MOST, CACHED // per_image))


@torch.inference_mode()
def evaluate_each(
    forward: Callable[..., Tensor],
    images: Tensor,
    targets: Tensor,
    batch: int = MOST,
    objective: Objective = CLASSIFICATION,
    draws: Tensor | None = None,
) -> list[tuple[float, ...]]:
    """The same for each of several models: `forward` gives the answers of all of them, [model, n, ...].

    Where memory has no room for a pass, passes of half as many images are tried.
    """
    while True:
        try:
            return _evaluate_each(forward, images, targets, batch, objective, draws)
        except (MemoryError, RuntimeError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        batch //= 2


def _evaluate_each(
    forward: Callable[..., Tensor],
    images: Tensor,
    targets: Tensor,
    batch: int,
    objective: Objective,
    draws: Tensor | None,
) -> list[tuple[float, ...]]:
    sums: Tensor | int = 0  # [model, sum]
    draws = objective.evaluation_draws(len(images)) if draws is None else draws
    for first in range(0, len(images), batch):
        some = slice(first, first + batch)
        drawn = None if draws is None else draws[some].to(images.device)
        inputs, wanted = objective.question(images[some], targets[some], drawn)
        sums = sums + torch.stack([objective.sums(own, wanted) for own in forward(*inputs)])
    rows = sums.tolist() if isinstance(sums, Tensor) else []
    return [objective.measured(row, len(images)) for row in rows]
