"""Names for latents, proposed by CLIP-Dissect or by a function of the user's. A proposal is not a finding.

CLIP-Dissect (Oikarinen and Weng 2204.10965) asks which words a CLIP finds likely for the images in which a latent is
strongest, and unlikely for those of other latents. With p(t | x), a softmax over the words t of a CLIP's similarity
with the image x, and p(x in B), how surely x is among the latent's images, its score (soft WPMI) of a word is

    log p(t | B) - lambda log p(t),    p(t | B) = product over x of (1 + p(x in B) (p(t | x) - 1))

where p(t) is the mean of p(t | B) over the latents. The words are those that are asked for: where none of them fits,
one of them is proposed all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.loaded import Loaded
from prisma.pretrained.zero_shot import PromptHead
from prisma.sparse.latents import Latents

SHARPNESS = 10.0  # what cosines are multiplied with before the softmax over words
SURE = (0.998, 0.97)  # p(x in B) of the strongest image, and what it falls to linearly
SMALLEST = 1e-7


@dataclass(frozen=True)
class Proposal:
    """A name that somebody proposes for a latent."""

    name: str
    by: str  # who proposes it: "CLIP-Dissect", or the name of a function
    score: float | None = None  # of CLIP-Dissect: above 0, the word is likelier for this latent than for others


@torch.no_grad()
def clip_dissect(
    found: Latents, similarity: Tensor, words: Sequence[str], *, sharpness: float = SHARPNESS, weight: float = 1.0
) -> dict[int, Proposal]:
    """For each latent that is not dead the word of the highest score.

    Args:
        found: the strongest images of each latent: with fewer than ten of each, the names are noisy.
        similarity: [image, word], the cosines of a CLIP's embeddings of all images with those of the words
            (`similarity_of`).
        sharpness, weight: the factor before the softmax, and lambda.

    Raises:
        PrismaError: words or images of another number.
    """
    if similarity.ndim != 2 or similarity.shape[1] != len(words) or len(similarity) != found.metadata["images"]:
        raise PrismaError(
            f"expected similarities of {found.metadata['images']:,} images with {len(words):,} words; found "
            f"{list(similarity.shape)}"
        )
    likely = (similarity.double() * sharpness).softmax(1).to(found.image.device)
    ranks = found.image.shape[1]
    surely = torch.linspace(SURE[0], SURE[0] - (SURE[0] - SURE[1]) * (ranks - 1) / ranks, ranks, dtype=torch.float64)
    on = (found.image >= 0).to(likely) * surely.to(likely.device)  # [latent, rank]
    logs = likely.new_zeros(len(found.image), likely.shape[1])
    for rank in range(ranks):
        image = found.image[:, rank].clamp(min=0)
        logs += torch.log(1 + on[:, rank, None] * (likely[image] - 1) + SMALLEST)
    alive = (~found.dead).nonzero()[:, 0]
    if not len(alive):
        return {}
    among = logs[alive]
    scores = among - weight * (among.logsumexp(0) - torch.log(torch.tensor(float(len(alive)), dtype=among.dtype)))
    best = scores.max(1)
    return {
        latent: Proposal(words[word], "CLIP-Dissect", score)
        for latent, word, score in zip(alive.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
    }


@torch.no_grad()
def similarity_of(clip: Loaded, images: Tensor | Pictures, words: Sequence[str], *, batch: int = 32) -> Tensor:
    """[image, word]: cosines of a CLIP's embeddings of images with those of words.

    Args:
        clip: a CLIP with its text side.
        images: normalised by the transform of the CLIP, in the order of the images of the latents.

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


def proposed_by(
    namer: Callable[[int, Latents], str | None], found: Latents, latents: Sequence[int] | None = None
) -> dict[int, Proposal]:
    """Names by a function of the user's, such as one that shows the images to a language model.

    Args:
        namer: gets a latent and all that is known of them; returns a name, or None to propose none.
        latents: which are named; by default all that are not dead.

    Raises:
        PrismaError: the function returns something that is neither text nor None.
    """
    by = getattr(namer, "__name__", type(namer).__name__)
    named: dict[int, Proposal] = {}
    for latent in latents if latents is not None else (~found.dead).nonzero()[:, 0].tolist():
        name = namer(latent, found)
        if not isinstance(name, str | None):
            raise PrismaError(f"expected a name as text, or None, for latent {latent}; found a {type(name).__name__}")
        if name:
            named[latent] = Proposal(name, by)
    return named
