"""Loss and accuracy of a model."""

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.metrics import above_and_tied, top_share
from prisma.vit import ViT


@torch.inference_mode()
def evaluate(model: ViT, images: Tensor, labels: Tensor, batch: int = 1024) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy: the share of images whose largest logit is that of their label).

    Where n classes share the largest logit, an image counts 1 / n, so that constant logits have the accuracy of chance.

    Args:
        images: normalised, [n, channel, height, width]; labels: [n].
        batch: the largest number of images in one pass.
    """
    loss, right = 0.0, 0.0
    for some, wanted in zip(images.split(batch), labels.split(batch), strict=True):
        logits = model(some)
        loss += F.cross_entropy(logits.double(), wanted, reduction="sum").item()
        right += top_share(*above_and_tied(logits, wanted)).sum(dtype=torch.float64).item()
    return loss / len(labels), right / len(labels)
