"""CLIP-Dissect against its formula, word by word."""

import math

import pytest
import torch

from prisma.analysis.clip_dissect import clip_dissect, similarity_of
from prisma.errors import PrismaError
from prisma.pretrained.zero_shot import PromptHead
from tests.pretrained.test_zero_shot import pair
from tests.variants import images_of

WORDS = ["stripes", "dots", "sky"]


def test_the_score_is_the_formula_of_the_paper() -> None:
    images, similarity = [[0, 2], [3, -1]], torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    named = clip_dissect(torch.tensor(images), similarity, WORDS)
    likely = []  # p(t | x)
    for x in similarity.tolist():
        parts = [math.exp(10 * value) for value in x]
        likely.append([part / sum(parts) for part in parts])
    sure = [0.998, 0.984]  # from .998 towards .97 over as many ranks
    p = [
        [math.prod(1 + sure[r] * (likely[i][t] - 1) for r, i in enumerate(rows) if i >= 0) for t in range(3)]
        for rows in images
    ]
    for unit in (0, 1):
        scores = [math.log(p[unit][t]) - math.log((p[0][t] + p[1][t]) / 2) for t in range(3)]
        best = max(range(3), key=lambda t: scores[t])
        assert named[unit].name == WORDS[best] and named[unit].by == "CLIP-Dissect"
        assert named[unit].score == pytest.approx(scores[best], abs=1e-4)
    assert clip_dissect(torch.zeros(0, 2, dtype=torch.long), similarity, WORDS) == []


def test_a_unit_of_one_kind_of_images_gets_its_word() -> None:
    similarity = torch.eye(3).repeat_interleave(5, 0)  # five images of each word
    images = torch.arange(15).view(3, 5)
    named = clip_dissect(images, similarity, WORDS)
    assert [one.name for one in named] == WORDS and all(one.score > 0 for one in named)  # type: ignore[operator]
    with pytest.raises(
        PrismaError, match=r"expected similarities of more than 14 images with 2 words; found \[15, 3\]"
    ):
        clip_dissect(images, similarity, WORDS[:2])
    with pytest.raises(
        PrismaError, match=r"expected similarities of more than 14 images with 3 words; found \[14, 3\]"
    ):
        clip_dissect(images, similarity[:14], WORDS)


def test_similarities_are_cosines_of_the_two_towers() -> None:
    clip, words = pair(), ["a", "bc", "ed"]
    images = images_of(clip.model, 5)
    found = similarity_of(clip, images, words, batch=2)
    model = clip.zero_shot(words).model
    assert isinstance(model.readout.head, PromptHead) and clip.text is not None
    assert torch.allclose(found * clip.text.logit_scale + clip.text.logit_bias, model(images), atol=1e-4)
    assert found.abs().max() <= 1 + 1e-5
