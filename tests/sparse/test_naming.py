"""Names for latents: those of CLIP-Dissect, and those of a function of the user's."""

import pytest
import torch

from prisma.analysis.clip_dissect import clip_dissect
from prisma.errors import PrismaError
from prisma.sparse.latents import Latents
from prisma.sparse.naming import dissected, proposed_by

WORDS = ["stripes", "dots", "sky"]


def found_of(images: list[list[int]], n: int) -> Latents:
    """Latents with these strongest images; those with none are dead."""
    image = torch.tensor(images)
    m, nothing = len(image), torch.zeros(len(image), 1)
    return Latents(
        metadata={"analysis": "latents", "images": n}, density=(image[:, 0] >= 0).double(), image=image,
        strength=(image >= 0).float(), maps=torch.zeros(m, image.shape[1], 1), histogram=nothing, range=nothing[:, 0],
        near=nothing, near_cosine=nothing,
    )  # fmt: skip


def test_latents_that_are_not_dead_get_the_names_of_clip_dissect() -> None:
    images, similarity = [[0, 2], [-1, -1], [3, -1]], torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    named = dissected(found_of(images, 4), similarity, WORDS)
    first, third = clip_dissect(torch.tensor([images[0], images[2]]), similarity, WORDS)
    assert named == {0: first, 2: third}
    assert dissected(found_of([[-1], [-1]], 4), similarity, WORDS) == {}
    assert dissected(found_of([[-1], [2]], 4), similarity, WORDS) == {}  # there is no other to judge a word against
    with pytest.raises(PrismaError, match="expected similarities of the 4 images of the latents; found 3"):
        dissected(found_of(images, 4), similarity[:3], WORDS)


def test_a_function_proposes_names_and_may_propose_none() -> None:
    found = found_of([[1], [0], [-1]], 2)

    def mine(latent: int, of: Latents) -> str | None:
        return f"image {int(of.image[latent, 0])}" if latent else None

    named = proposed_by(mine, found)
    assert {i: (one.name, one.by, one.score) for i, one in named.items()} == {1: ("image 0", "mine", None)}
    with pytest.raises(PrismaError, match="expected a name as text, or None, for latent 0; found a int"):
        proposed_by(lambda latent, of: latent, found)  # type: ignore[arg-type,return-value]
