"""Loss and accuracy of a model."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.config import ViTConfig
from prisma.metrics import above_and_tied, top_share
from prisma.train.machine import is_out_of_memory
from prisma.vit import ViT

MOST = 1024  # images in one pass
CACHED = 8 * 2**20  # bytes of the largest activation of a pass on a CPU: above, its caches do not hold it


def evaluate(model: ViT, images: Tensor, labels: Tensor, batch: int | None = None) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy: the share of images whose largest logit is that of their label).

    Where n classes share the largest logit, an image counts 1 / n, so that constant logits have the accuracy of chance.

    Args:
        images: normalised, [n, channel, height, width]; labels: [n].
        batch: the largest number of images in one pass; by default `images_per_pass`.
    """
    batch = batch or images_per_pass(model.config, images.device.type)
    return evaluate_each(lambda some: model(some)[None], images, labels, batch)[0]


def images_per_pass(config: ViTConfig, device: str) -> int:
    """How many images a pass of evaluation has: as many as are fast."""
    if device != "cpu":
        return MOST
    per_image = 4 * config.n_tokens * max(config.d_model, config.d_mlp)
    return max(1, min(MOST, CACHED // per_image))


@torch.inference_mode()
def evaluate_each(
    forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int = MOST
) -> list[tuple[float, float]]:
    """The same for each of several models: `forward` gives the logits of all of them, [model, n, class].

    Where memory has no room for a pass, passes of half as many images are tried.
    """
    while True:
        try:
            return _evaluate_each(forward, images, labels, batch)
        except (MemoryError, RuntimeError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        batch //= 2


def _evaluate_each(
    forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int
) -> list[tuple[float, float]]:
    sums: Tensor | int = 0  # of losses and shares, [2, model]
    for some, wanted in zip(images.split(batch), labels.split(batch), strict=True):
        logits = forward(some)
        losses = [F.cross_entropy(own.double(), wanted, reduction="sum") for own in logits]
        shares = [top_share(*above_and_tied(own, wanted)).sum(dtype=torch.float64) for own in logits]
        sums = sums + torch.stack([torch.stack(losses), torch.stack(shares)])
    loss, right = (sums / len(labels)).tolist() if isinstance(sums, Tensor) else ([], [])
    return list(zip(loss, right, strict=True))
