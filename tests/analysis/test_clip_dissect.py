"""CLIP-Dissect against its formula, word by word."""

import math
from typing import Any

import pytest
import torch

import prisma
from prisma.analysis.clip_dissect import ClipDissect, clip_dissect, similarity_of
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.pretrained.zero_shot import PromptHead
from tests.pretrained.test_zero_shot import pair
from tests.variants import images_of, model_of

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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.tensor([[0, 1]])}, r"of two units or more, .*; found torch.int64 \[1, 2\]"),
        ({"images": torch.tensor([0, 1])}, r"whole numbers \[unit, rank\], .*; found torch.int64 \[2\]"),
        ({"images": torch.ones(2, 2)}, r"found torch.float32 \[2, 2\]"),
        ({"images": [[0], [1]]}, r"found \[\[0\], \[1\]\]"),
        (
            {"images": torch.tensor([[0, 1], [-1, -1]])},
            "an image of each unit; found none of the unit in row 1",
        ),
        (
            {"images": torch.zeros(2, 0, dtype=torch.long)},
            "found none of the unit in row 0",
        ),
        ({"words": [], "similarity": torch.zeros(4, 0)}, r"expected a list of words to choose from; found \[\]"),
        ({"words": "abc"}, "expected a list of words to choose from; found 'abc'"),
        ({"similarity": torch.full((4, 3), torch.nan)}, "expected finite similarities; found nan in image 0"),
        ({"sharpness": torch.nan}, "expected a finite sharpness and weight; found nan and 1.0"),
        ({"weight": "x"}, "expected weight to be a number; found 'x'"),
    ],
)
def test_what_has_no_word_is_refused(changed: dict[str, Any], message: str) -> None:
    """Of one unit, all words have the score 0, and the first of the list would be its name."""
    given: dict[str, Any] = {"images": torch.tensor([[0, 1], [2, 3]]), "similarity": torch.rand(4, 3), "words": WORDS}
    with pytest.raises(PrismaError, match=message):
        clip_dissect(**given | changed)


def test_a_result_is_made_of_top_images_alone() -> None:
    wrong: Any = "blocks.5.mlp.post"
    with pytest.raises(PrismaError, match=r"expected the result of top_images; found 'blocks.5.mlp.post'"):
        ClipDissect.of(wrong, torch.rand(4, 3), WORDS)


def test_a_result_has_some_units_of_all_that_were_compared() -> None:
    model = model_of("base", torch.float32)
    similarity = torch.rand(6, 3, generator=torch.Generator().manual_seed(2))
    top = prisma.top_images(model, images_of(model, 6), "blocks.0.mlp.post", k=2)
    whole, some = ClipDissect.of(top, similarity, WORDS), ClipDissect.of(top, similarity, WORDS, [7, 0])
    named = clip_dissect(top.images, similarity, WORDS)
    assert whole.metadata["words"] == [one.name for one in named] and whole.metadata["analysis"] == "clip_dissect"
    assert some.metadata["words"] == [named[7].name, named[0].name] and some.metadata["units"] == [7, 0]
    assert some.maps is not None and top.maps is not None and torch.equal(some.maps, top.maps[[7, 0]])
    assert some.score.tolist() == pytest.approx([named[7].score, named[0].score])
    lines = some.report().splitlines()
    best = max((7, 0), key=lambda unit: named[unit].score)  # type: ignore[arg-type, return-value]
    assert lines[0].endswith("of blocks.0.mlp.post, which need not fit:") and len(lines) == 3
    assert lines[1].startswith(f"{best}: {named[best].name} (score {named[best].score:.2f}; ")
    with pytest.raises(PrismaError, match="expected units among the 10 that were looked at; found 10"):
        ClipDissect.of(top, similarity, WORDS, [10])
    with pytest.raises(PrismaError, match="expected similarities of the 6 images of the units; found 5"):
        ClipDissect.of(top, similarity[:5], WORDS)


def test_a_clip_without_images_or_words_is_refused() -> None:
    clip = pair()
    images = images_of(clip.model, 2)
    for given, message in {
        (images[:0], ("a",), 32): "expected at least one image; found none",
        (images, (), 32): "expected a list of prompts",
        (images, ("a",), 0): "expected passes of one image or more; found batch=0",
    }.items():
        with pytest.raises(PrismaError, match=message):
            similarity_of(clip, given[0], given[1], batch=given[2])


def test_a_clip_of_half_precision_looks_at_pictures() -> None:
    clip, exact = pair(dtype=torch.bfloat16), pair(dtype=torch.float64)
    exact.model.load_state_dict(clip.model.state_dict())
    assert exact.text is not None and clip.text is not None
    exact.text.model.load_state_dict(clip.text.model.state_dict())
    images = images_of(exact.model, 5).float()
    pictures = Pictures(tuple("abcde"), "hash", lambda rows: images[list(rows)])
    found = similarity_of(clip, pictures, ["a", "bc"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), similarity_of(exact, images.double(), ["a", "bc"]), atol=0.03, rtol=0)


def test_similarities_are_cosines_of_the_two_towers() -> None:
    clip, words = pair(), ["a", "bc", "ed"]
    images = images_of(clip.model, 5)
    found = similarity_of(clip, images, words, batch=2)
    model = clip.zero_shot(words).model
    assert isinstance(model.readout.head, PromptHead) and clip.text is not None
    assert torch.allclose(found * clip.text.logit_scale + clip.text.logit_bias, model(images), atol=1e-4)
    assert found.abs().max() <= 1 + 1e-5
