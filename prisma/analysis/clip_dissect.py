"""Names for units, proposed by what a CLIP sees in the images to which they answer most. A proposal is not a finding.

CLIP-Dissect asks which words a CLIP finds likely for the images in which a unit is strongest, and unlikely for those of
other units. With p(t | x), a softmax over the words t of a CLIP's similarity with the image x, and p(x in B), how
surely x is among the unit's images, its score (soft WPMI) of a word is

    log p(t | B) - lambda log p(t),    p(t | B) = product over x of (1 + p(x in B) (p(t | x) - 1))

where p(t) is the mean of p(t | B) over the units. The words are those that are asked for: where none of them fits, one
of them is proposed all the same.

Source: Oikarinen and Weng 2204.10965.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.top_images import TopImages
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.loaded import Loaded
from prisma.pretrained.zero_shot import PromptHead

SHARPNESS = 10.0  # what cosines are multiplied with before the softmax over words
SURE = (0.998, 0.97)  # p(x in B) of the strongest image, and what it falls to linearly
SMALLEST = 1e-7
NAME = "CLIP-Dissect"
SHOWN = 20
"""Units in a report."""


@dataclass(frozen=True)
class Proposal:
    """A name that somebody proposes for a unit."""

    name: str
    by: str  # who proposes it: "CLIP-Dissect", or the name of a function
    score: float | None = None  # of CLIP-Dissect: above 0, the word is likelier for this unit than for others


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipDissect(TopImages):
    """For each unit the word that CLIP-Dissect proposes, beside the images that it is proposed for.

    `metadata["words"]` has the word of each unit, `score` how much likelier it is for this unit than for the mean unit.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"score": ("unit",), **TopImages.AXES}

    score: Tensor  # [unit]

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        both = zip(self.metadata["units"], self.metadata["words"], strict=True)
        return {"unit": [f"{unit} {word}" for unit, word in both]}

    def report(self, classes: Sequence[str] = ()) -> str:
        """The units with the highest scores: their words, and how strong they are on their images."""
        order = self.score.argsort(descending=True, stable=True).tolist()
        rows = [
            f"{self._called(i)} (score {self.score[i]:.2f}; {self.values[i, 0]:.2f} to {self.values[i, -1]:.2f}, mean "
            f"{self.mean[i]:.2f})"
            for i in order[:SHOWN]
        ]
        more = [f"and {len(order) - SHOWN:,} more units with lower scores"] if len(order) > SHOWN else []
        site = self.metadata["site"]
        return "\n".join([f"Words that a CLIP proposes for units of {site}, which need not fit:", *rows, *more])

    def _called(self, row: int) -> str:
        return f"{self.metadata['units'][row]}: {self.metadata['words'][row]}"


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


def named_units(found: TopImages, similarity: Tensor, words: Sequence[str]) -> ClipDissect:
    """`clip_dissect` of the units of `top_images`, as one result.

    Args:
        similarity: [image, word], of the images in which `found` looked (`similarity_of`).

    Raises:
        PrismaError: similarities of other words, or of another number of images.
    """
    if len(similarity) != found.metadata["data"]:
        raise PrismaError(
            f"expected similarities of the {found.metadata['data']:,} images of the units; found {len(similarity):,}"
        )
    named = clip_dissect(found.images, similarity, words)
    return ClipDissect(
        metadata={**found.metadata, "analysis": "clip_dissect", "words": [one.name for one in named]},
        score=torch.tensor([one.score for one in named], dtype=found.values.dtype),
        **found.arrays,
    )


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
