"""Names for latents, proposed by CLIP-Dissect or by a function of the user's. A proposal is not a finding."""

from collections.abc import Callable, Sequence

from torch import Tensor

from prisma.analysis.clip_dissect import Proposal, clip_dissect
from prisma.errors import PrismaError
from prisma.sparse.latents import Latents


def dissected(found: Latents, similarity: Tensor, words: Sequence[str]) -> dict[int, Proposal]:
    """For each latent that is not dead the word that CLIP-Dissect proposes (`prisma.clip_dissect`).

    A single latent that is not dead gets none, for a word is proposed against those of other latents.

    Raises:
        PrismaError: similarities of another number of images or words.
    """
    if len(similarity) != found.metadata["images"]:
        raise PrismaError(
            f"expected similarities of the {found.metadata['images']:,} images of the latents; found "
            f"{len(similarity):,}"
        )
    alive = (~found.dead).nonzero()[:, 0]
    if len(alive) < 2:
        return {}
    return dict(zip(alive.tolist(), clip_dissect(found.image[alive], similarity, words), strict=True))


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
