"""Names for latents: CLIP-Dissect against its formula, word by word, and a function of the user's."""

import math

import pytest
import torch

from prisma.errors import PrismaError
from prisma.pretrained.zero_shot import PromptHead
from prisma.sparse.latents import Latents
from prisma.sparse.naming import clip_dissect, proposed_by, similarity_of
from tests.pretrained.test_zero_shot import pair
from tests.variants import images_of

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


def test_the_score_is_the_formula_of_the_paper() -> None:
    images, similarity = [[0, 2], [3, -1], [-1, -1]], torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    named = clip_dissect(found_of(images, 4), similarity, WORDS)
    likely = []  # p(t | x)
    for x in similarity.tolist():
        parts = [math.exp(10 * value) for value in x]
        likely.append([part / sum(parts) for part in parts])
    sure = [0.998, 0.984]  # from .998 towards .97 over as many ranks
    p = [
        [math.prod(1 + sure[r] * (likely[i][t] - 1) for r, i in enumerate(rows) if i >= 0) for t in range(3)]
        for rows in images[:2]
    ]
    for latent in (0, 1):
        scores = [math.log(p[latent][t]) - math.log((p[0][t] + p[1][t]) / 2) for t in range(3)]
        best = max(range(3), key=lambda t: scores[t])
        assert named[latent].name == WORDS[best] and named[latent].by == "CLIP-Dissect"
        assert named[latent].score == pytest.approx(scores[best], abs=1e-4)
    assert 2 not in named, "no name for a dead latent"
    assert clip_dissect(found_of([[-1], [-1]], 4), similarity, WORDS) == {}


def test_a_latent_of_one_kind_of_images_gets_its_word() -> None:
    similarity = torch.eye(3).repeat_interleave(5, 0)  # five images of each word
    images = [list(range(5)), list(range(5, 10)), list(range(10, 15))]
    named = clip_dissect(found_of(images, 15), similarity, WORDS)
    assert [named[i].name for i in range(3)] == WORDS and all(named[i].score > 0 for i in range(3))  # type: ignore[operator]
    with pytest.raises(PrismaError, match=r"expected similarities of 15 images with 2 words; found \[15, 3\]"):
        clip_dissect(found_of(images, 15), similarity, WORDS[:2])


def test_similarities_are_cosines_of_the_two_towers() -> None:
    clip, words = pair(), ["a", "bc", "ed"]
    images = images_of(clip.model, 5)
    found = similarity_of(clip, images, words, batch=2)
    model = clip.zero_shot(words).model
    assert isinstance(model.readout.head, PromptHead) and clip.text is not None
    assert torch.allclose(found * clip.text.logit_scale + clip.text.logit_bias, model(images), atol=1e-4)
    assert found.abs().max() <= 1 + 1e-5


def test_a_function_proposes_names_and_may_propose_none() -> None:
    found = found_of([[1], [0], [-1]], 2)

    def mine(latent: int, of: Latents) -> str | None:
        return f"image {int(of.image[latent, 0])}" if latent else None

    named = proposed_by(mine, found)
    assert {i: (one.name, one.by, one.score) for i, one in named.items()} == {1: ("image 0", "mine", None)}
    with pytest.raises(PrismaError, match="expected a name as text, or None, for latent 0; found a int"):
        proposed_by(lambda latent, of: latent, found)  # type: ignore[arg-type,return-value]
