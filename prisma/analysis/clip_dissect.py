"""Names for units, proposed by what a CLIP sees in the images to which they answer most. A proposal is not a finding.

CLIP-Dissect asks which words a CLIP finds likely for the images in which a unit is strongest, and unlikely for those of
other units. With p(t | x), a softmax over the words t of a CLIP's similarity with the image x, and p(x in B), how
surely x is among the unit's images, its score (soft WPMI) of a word is

    log p(t | B) - lambda log p(t),    p(t | B) = product over x of (1 + p(x in B) (p(t | x) - 1))

where p(t) is the mean of p(t | B) over the units. The words are those that are asked for: where none of them fits, one
of them is proposed all the same.

Source: Oikarinen and Weng 2204.10965.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.loaded import Loaded
from prisma.pretrained.zero_shot import PromptHead

SHARPNESS = 10.0  # what cosines are multiplied with before the softmax over words
SURE = (0.998, 0.97)  # p(x in B) of the strongest image, and what it falls to linearly
SMALLEST = 1e-7
NAME = "CLIP-Dissect"


@dataclass(frozen=True)
class Proposal:
    """A name that somebody proposes for a unit."""

    name: str
    by: str  # who proposes it: "CLIP-Dissect", or the name of a function
    score: float | None = None  # of CLIP-Dissect: above 0, the word is likelier for this unit than for others


@torch.no_grad()
def clip_dissect(
    images: Tensor, similarity: Tensor, words: Sequence[str], *, sharpness: float = SHARPNESS, weight: float = 1.0
) -> list[Proposal]:
    """Which word fits the images of each unit, and not those of the others?

    A score above 0 says that the word is likelier for this unit than for the mean unit; scores of different words or
    sets of units cannot be compared. With fewer than ten images of each unit, the names are noisy.

    Args:
        images: [unit, rank], the indices of each unit's strongest images, from the strongest down, as in
            `top_images(...).images`; -1 where there are fewer.
        similarity: [image, word], the cosines of a CLIP's embeddings of all images with those of the words
            (`similarity_of`).
        sharpness, weight: the factor before the softmax, and lambda.

    Returns:
        For each unit, the word of the highest score.

    Raises:
        PrismaError: words or images of another number.

    Source: Oikarinen and Weng 2204.10965.
    """
    most = int(images.max()) if images.numel() else -1
    if similarity.ndim != 2 or similarity.shape[1] != len(words) or len(similarity) <= most:
        raise PrismaError(
            f"expected similarities of more than {most:,} images with {len(words):,} words; found "
            f"{list(similarity.shape)}"
        )
    if not len(images):
        return []
    likely = (similarity.double() * sharpness).softmax(1).to(images.device)
    ranks = images.shape[1]
    surely = torch.linspace(SURE[0], SURE[0] - (SURE[0] - SURE[1]) * (ranks - 1) / ranks, ranks, dtype=torch.float64)
    on = (images >= 0).to(likely) * surely.to(likely.device)  # [unit, rank]
    logs = likely.new_zeros(len(images), likely.shape[1])
    for rank in range(ranks):
        logs += torch.log(1 + on[:, rank, None] * (likely[images[:, rank].clamp(min=0)] - 1) + SMALLEST)
    scores = logs - weight * (logs.logsumexp(0) - torch.log(torch.tensor(float(len(images)), dtype=logs.dtype)))
    best = scores.max(1)
    return [
        Proposal(words[word], NAME, score)
        for word, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@torch.no_grad()
def similarity_of(clip: Loaded, images: Tensor | Pictures, words: Sequence[str], *, batch: int = 32) -> Tensor:
    """[image, word]: cosines of a CLIP's embeddings of images with those of words.

    Args:
        clip: a CLIP with its text side.
        images: normalised by the transform of the CLIP, in the order of the images of the units.

    Raises:
        PrismaError: a model without a text side, or no words.
    """
    model = clip.zero_shot(words).model
    head = model.readout.head
    assert isinstance(head, PromptHead)
    parts = []
    for start in range(0, len(images), batch):
        rows = range(start, min(start + batch, len(images)))
        some = images[start : rows.stop] if isinstance(images, Tensor) else images.read(rows)
        parts.append((model(some.to(head.directions.device)) - head.bias) / head.scale)
    return torch.cat(parts)
