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
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.top_images import TopImages, expect_data
from prisma.data.pictures import Pictures
from prisma.errors import NotFiniteError, PrismaError, quoted
from prisma.fields import conform
from prisma.loaded import Loaded
from prisma.numbers import exact, first_not_finite
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

    @classmethod
    def of(
        cls, found: TopImages, similarity: Tensor, words: Sequence[str], units: Sequence[int] | None = None
    ) -> "ClipDissect":
        """`clip_dissect` of the units of `top_images`, as one result.

        Args:
            found: of all units of a site, because a word is proposed against those of the others.
            similarity: [image, word], of the images in which `found` looked (`similarity_of`).
            units: those of the result, by their indices at the site; by default all.

        Raises:
            PrismaError: similarities of other words, or of another number of images; a unit that is not among them; or
                as `clip_dissect`.
        """
        if not isinstance(found, TopImages):
            raise PrismaError(f"expected the result of top_images; found {quoted(found)}")
        if len(similarity) != found.metadata["data"]:
            raise PrismaError(
                f"expected similarities of the {found.metadata['data']:,} images of the units; found "
                f"{len(similarity):,}"
            )
        known = list(found.metadata["units"])
        chosen = known if units is None else list(units)
        if wrong := [unit for unit in chosen if unit not in known]:
            raise PrismaError(f"expected units among the {len(known):,} that were looked at; found {quoted(wrong[0])}")
        rows = [known.index(unit) for unit in chosen]
        named = clip_dissect(found.images, similarity, words)
        own = {"analysis": "clip_dissect", "units": chosen, "words": [named[row].name for row in rows]}
        return cls(
            metadata={**found.metadata, **own},
            score=torch.tensor([named[row].score for row in rows], dtype=found.values.dtype),
            **{name: x[rows] for name, x in found.arrays.items()},
        )

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
            `top_images(...).images`; -1 where there are fewer. Two units or more: all of a site, for their words are
            judged against each other.
        similarity: [image, word], the cosines of a CLIP's embeddings of all images with those of the words
            (`similarity_of`).
        sharpness, weight: the factor before the softmax, and lambda.

    Returns:
        For each unit, the word of the highest score.

    Raises:
        PrismaError: words or images of another number, no words, a single unit, or one without images.
        NotFiniteError: a similarity, the sharpness or the weight is NaN or infinite.

    Source: Oikarinen and Weng 2204.10965.
    """
    _expect_units(images)
    sharpness, weight = conform("sharpness", sharpness, float), conform("weight", weight, float)
    if not (isfinite(sharpness) and isfinite(weight)):
        raise NotFiniteError(f"expected a finite sharpness and weight; found {sharpness} and {weight}")
    most = int(images.max()) if images.numel() else -1
    if isinstance(words, str) or not len(words):
        raise PrismaError(f"expected a list of words to choose from; found {quoted(words)}")
    if similarity.ndim != 2 or similarity.shape[1] != len(words) or len(similarity) <= most:
        raise PrismaError(
            f"expected similarities of more than {most:,} images with {len(words):,} words; found "
            f"{list(similarity.shape)}"
        )
    if (wrong := first_not_finite(similarity)) is not None:
        raise NotFiniteError(f"expected finite similarities; found {wrong[1]} in image {wrong[0]}")
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


def _expect_units(images: Tensor) -> None:
    """Raise PrismaError unless these are the images of no unit, or of two or more, each of which has one at least."""
    whole = isinstance(images, Tensor) and images.dtype in (torch.int64, torch.int32) and images.ndim == 2
    if not whole or len(images) == 1:
        found = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else quoted(images)
        raise PrismaError(
            "expected the indices of images as whole numbers [unit, rank], of two units or more, because a word is "
            f"proposed against those of other units; found {found}"
        )
    if (absent := (images < 0).all(1)).any():
        raise PrismaError(f"expected an image of each unit; found none of the unit in row {int(absent.int().argmax())}")


@torch.no_grad()
def similarity_of(clip: Loaded, images: Tensor | Pictures, words: Sequence[str], *, batch: int = 32) -> Tensor:
    """[image, word]: cosines of a CLIP's embeddings of images with those of words.

    Args:
        clip: a CLIP with its text side.
        images: normalised by the transform of the CLIP, in the order of the images of the units.

    Raises:
        PrismaError: a model without a text side, no words, no images, or fewer than one image in a pass.
    """
    expect_data(images)
    if batch < 1:
        raise PrismaError(f"expected passes of one image or more; found batch={batch}")
    model = clip.zero_shot(words).model
    head = model.readout.head
    assert isinstance(head, PromptHead)
    parts = []
    for start in range(0, len(images), batch):
        rows = range(start, min(start + batch, len(images)))
        some = images[start : rows.stop] if isinstance(images, Tensor) else images.read(rows)
        parts.append((model(some.to(model.embed.prefix)) - head.bias) / head.scale)
    return exact(torch.cat(parts))
