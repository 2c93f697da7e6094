"""How good a model is on a split."""

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.vit import ViT


@torch.inference_mode()
def evaluate(model: ViT, images: Tensor, labels: Tensor, batch: int = 1024) -> tuple[float, float]:
    """(mean cross-entropy in nats, share of images whose largest logit is the label's).

    Args:
        images: normalised, [n, channel, height, width]; labels: [n].
        batch: at most so many images in one pass, which bounds the memory.
    """
    loss, right = 0.0, 0
    for some, wanted in zip(images.split(batch), labels.split(batch), strict=True):
        logits = model(some)
        loss += F.cross_entropy(logits.double(), wanted, reduction="sum").item()
        right += int((logits.argmax(-1) == wanted).sum())
    return loss / len(labels), right / len(labels)
