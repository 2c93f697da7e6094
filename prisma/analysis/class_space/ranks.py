"""The rank of the image's class at a token: how many classes have a larger logit.

Classes with the same logit are in no order: each number is its mean over all orders of those that tie, so that constant
logits have exactly the numbers of chance.

Shapes: B image, T token, C class.
"""

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.metrics import above_and_tied, top_share
from prisma.vit import ViT


def expect_classes(model: ViT) -> None:
    """Raise PrismaError unless the model has classes."""
    if not model.config.n_classes:
        raise PrismaError(
            "expected a model with classes; found n_classes=0: give it prompts (loaded.zero_shot) or a head"
        )


def expect_labels(model: ViT, images: Tensor, labels: Tensor) -> Tensor:
    """The labels as numbers that index classes, on the device of the images.

    Raises:
        PrismaError: the model has no classes, or a single one, which is first whatever the image; there are no images;
            or not each has a class as its label.
    """
    expect_classes(model)
    n = model.config.n_classes
    if n < 2:
        raise PrismaError("expected a model with two classes or more, for ranks among them; found n_classes=1")
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    if labels.shape != images.shape[:1]:
        raise PrismaError(f"expected a label for each of {len(images)} images; found {list(labels.shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise PrismaError(f"expected labels as whole numbers; found {labels.dtype}")
    if not ((labels >= 0) & (labels < n)).all():
        wrong = labels[(labels < 0) | (labels >= n)][0].item()
        raise PrismaError(f"expected a class from 0 to {n - 1}; found {wrong}")
    return labels.to(images.device, torch.int64)


def rank_and_ties(logits_BTC: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Rank of each image's class at each token, 0 is best, ties at their mean; and how many classes share its logit."""
    flat, tokens = logits_BTC.flatten(0, 1), logits_BTC.shape[1]
    above, tied = above_and_tied(flat, labels_B.repeat_interleave(tokens))
    return (above + (tied - 1) / 2).view(-1, tokens), tied.view(-1, tokens)


def _above(rank: Tensor, tied: Tensor | None) -> tuple[Tensor, Tensor]:
    """How many classes are above the image's, and how many are level with it, itself included."""
    wide = rank.double()
    shared = torch.ones_like(wide) if tied is None else tied.double()
    return wide - (shared - 1) / 2, shared


def first_share(rank: Tensor, tied: Tensor | None = None) -> Tensor:
    """1 where the class has the largest logit, else 0; of n classes that share it, each has 1 / n. NaN stays NaN."""
    return torch.where(rank.isnan(), torch.nan, top_share(*_above(rank, tied)))


def score_of(rank: Tensor, classes: int) -> Tensor:
    """1 - rank / C: from 1 for the first class down to 1 / C for the last."""
    return 1 - rank.double() / classes


def reciprocal_rank(rank: Tensor, tied: Tensor | None, classes: int) -> Tensor:
    """1 / (1 + rank), and its mean over the ranks that tied classes share. NaN stays NaN."""
    above, shared = (x.nan_to_num(1) for x in _above(rank, tied))
    inverse = 1 / torch.arange(1, classes + 1).to(shared)
    total = torch.cat([shared.new_zeros(1), inverse.cumsum(0)])
    found = (total[(above + shared).long()] - total[above.long()]) / shared
    return torch.where(rank.isnan(), torch.nan, found)


def by_chance(classes: int) -> dict[str, float]:
    """What random answers have: `rate`, `score` and `mrr`."""
    mrr = sum(1 / k for k in range(1, classes + 1)) / classes
    return {"rate": 1 / classes, "score": 1 - (classes - 1) / (2 * classes), "mrr": mrr}
