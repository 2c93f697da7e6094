"""Head scores: planted heads come first in the ranking of what they look at, with a score of 1, and no other."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.attention.head_scores import HeadScores, head_scores, pixel_content
from prisma.analysis.attention.score_functions import SCORES, Score, ScoreContext, computable_scores
from prisma.analysis.attention.token_grid import TokenGrid, uniform_attention
from prisma.runs import record
from tests.planted_heads import planted, row_normal
from tests.variants import WITH_LAYERS, config_of, images_of, model_of

FORMS: dict[str, dict[str, Any]] = {
    "class token and registers": {"image_size": (3, 4), "registers": 2},
    "patches alone": {"image_size": (4, 3), "class_token": False, "pool": "mean"},
    "registers alone": {"image_size": 3, "class_token": False, "registers": 1, "pool": "mean"},
    "attention pooling": {"image_size": 3, "pool": "attention", "pool_heads": 1},
    "video": {"image_size": (3, 2), "frames": 2},
    "divided": {"image_size": (3, 2), "frames": 2, "attention": "divided"},
}
LAYER, HEAD = 1, 2


def look_of(name: str, config: Any, attention: str = "attn") -> Tensor:
    """A pattern that a score must find: all attention goes where it looks, and no further than can be seen."""
    keys = TokenGrid.of(config, attention)
    tokens = torch.arange(keys.n_tokens)
    if name == "sink":
        return row_normal((tokens == keys.n_prefix).expand(keys.n_tokens, -1))
    uniform = uniform_attention(config, attention)
    only = torch.eye(keys.n_tokens)[:, None, None].expand(-1, -1, keys.n_tokens, -1)  # patterns that look at one key
    rows = [  # of each query, the scores of these patterns
        SCORES[name](only, ScoreContext(keys=keys, uniform=uniform, queries=tokens == query)).nan_to_num()[:, 0]
        for query in tokens
    ]
    return row_normal(torch.stack(rows) * (uniform > 0))


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_head_is_first(form: str) -> None:
    empty = planted({}, **FORMS[form])
    config = empty.config
    images = torch.zeros(2, *config.input_shape, dtype=torch.float64)
    names = head_scores(empty, images).metadata["scores"]
    assert set(names) >= {"sink", "corner", "edge", "row", "column", "neighbour", "previous_patch", "next_patch"}
    for name in names:
        model = planted({(LAYER, HEAD): look_of(name, config)}, **FORMS[form])
        found = head_scores(model, images, [name], batch=1)
        first, second = found.top(name, k=2)
        assert (first.layer, first.head) == (LAYER, HEAD), name
        assert first.error < 1e-9
        if config.attention == "joint":  # in divided attention the class token reads each frame by itself
            assert first.score == pytest.approx(1, abs=1e-6), name
            assert second.score == pytest.approx(second.chance), name


def test_heads_over_time_are_found_too() -> None:
    fields = FORMS["divided"]
    forth = torch.eye(12).roll(6, 1)  # to the same place in the other frame
    model = planted({}, over_time={(1, 0): forth}, **fields)
    images = torch.zeros(1, *model.config.input_shape, dtype=torch.float64)
    found = head_scores(model, images, attention="time")
    assert found.metadata["scores"] == ["sink", "corner", "edge", "place", "itself"]
    first = found.top("place")[0]
    assert (first.layer, first.head, first.chance) == (1, 0, 0.5)
    assert first.score == pytest.approx(1)
    assert found.top("itself")[-1].score == pytest.approx(0)


def test_an_object_head_is_found_by_masks() -> None:
    look = torch.zeros(10, 10)
    look[:, [2, 3]] = 0.5
    model = planted({(0, 1): look}, image_size=3)
    masks = torch.zeros(3, 3, 3)
    masks[:2, 0, 1:] = 1  # the third image shows no object
    images = torch.zeros(3, 1, 3, 3, dtype=torch.float64)
    for shape in ((3, 3, 3), (3, 9), (3, 1, 3, 3)):
        found = head_scores(model, images, ["object", "corner"], masks=masks.view(shape), batch=2)
        first, second = found.top("object", 2)
        assert (first.layer, first.head) == (0, 1)
        assert (first.score, first.error, first.chance) == pytest.approx((1, 0, 0.2))
        assert second.score == pytest.approx(0.2)
        assert found.scores[2, 0].isnan().all()
        assert not found.mean.isnan().any()


def test_an_induction_head_is_found_by_content() -> None:
    """Its scores are products of pixels, minus those of positions: it looks at its like, not at itself."""
    fields = {"image_size": (2, 12), "channels": 1, "class_token": False, "pool": "mean"}
    model = model_of("attention_only_norm_none", n_layers=1, n_heads=2, d_model=10, d_head=10, **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.patch.weight[:4] = torch.eye(4)
        assert model.embed.positions is not None
        model.embed.positions[:, 4:] = torch.eye(6)
        q, k, _ = model.blocks[0].get_submodule("attn").qkv.weight.view(3, 2, 10, 10)
        q[1] = torch.diag(torch.tensor([40.0] * 4 + [-400.0] * 6))
        k[1] = torch.eye(10)
    glyphs = torch.tensor([[[1, -1], [-1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[0, 0], [0, 0]]])
    rows = torch.tensor([[0, 1, 3, 0, 2, 3], [2, 3, 1, 1, 0, 2]])
    images = glyphs[rows].permute(0, 2, 1, 3).reshape(2, 1, 2, 12).double()
    first, second = head_scores(model, images, ["induction"]).top("induction")
    assert (first.layer, first.head) == (0, 1)
    assert first.score == pytest.approx(1)
    assert second.score == pytest.approx(first.chance) == pytest.approx(1 / 6)
    of_pixels = head_scores(model, images, ["induction"])
    assert torch.equal(head_scores(model, images, ["induction"], content=(rows + 1) % 4).scores, of_pixels.scores)
    assert "induction" in head_scores(model, images, content=rows).metadata["scores"]


def test_pixels_are_content() -> None:
    config = config_of("base", image_size=4, channels=2)
    image = torch.zeros(2, 4, 4)
    image[0, :2, :2] = image[0, 2:, 2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    image[1, :2, 2:] = 5  # one colour
    image[0, 2:, :2] = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    first, blank, other, last = pixel_content(config, image[None])[0].tolist()
    assert blank == 0 and first == last > 0 and other not in (0, first)
    video = config_of("video")
    assert pixel_content(video, torch.rand(2, *video.input_shape)).shape == (2, video.n_patches)


@pytest.mark.parametrize("variant", WITH_LAYERS)
def test_every_form_of_model_is_scored_layer_by_layer(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, n=3)
    found = head_scores(model, images, batch=2)
    assert found.scores.shape[2:] == (model.config.n_layers, model.config.n_heads)
    _, acts = record(model, images, ["blocks.*.attn.pattern"])
    keys = TokenGrid.of(model.config)
    context = ScoreContext(keys=keys, uniform=uniform_attention(model.config), queries=keys.role("all"))
    for index, (name, score) in enumerate(computable_scores(context).items()):
        assert found.metadata["scores"][index] == name
        for layer, pattern in enumerate(acts.values()):
            torch.testing.assert_close(found.scores[:, index, layer], score(pattern, context), equal_nan=True)
        torch.testing.assert_close(found.chance[:, index], score.chance(context).expand(3), equal_nan=True)


def test_the_query_of_attention_pooling_looks_at_places() -> None:
    model = model_of("pool_attention_prefix")
    images = images_of(model)
    found = head_scores(model, images, attention="pool")
    assert found.metadata["scores"] == ["class_token", "register", "sink", "corner", "edge"]
    pattern = record(model, images, ["pool.pattern"])[1]["pool.pattern"][:, :, 0]
    torch.testing.assert_close(found.scores[:, 0, 0], pattern[:, :, 0].detach())
    corners = pattern[:, :, [2, 4, 8, 10]].sum(-1).detach()
    torch.testing.assert_close(found.scores[:, 3, 0], corners)
    with pytest.raises(PrismaError, match="it needs tokens as queries"):
        head_scores(model, images, ["row"], attention="pool")
    with pytest.raises(PrismaError, match="queries must be 'all'; found 'class'"):
        head_scores(model, images, attention="pool", queries="class")


def test_means_and_standard_errors_are_over_images(tmp_path: Path) -> None:
    model = model_of("registers")
    found = head_scores(model, images_of(model, n=5), ["class_token", "edge"])
    values = found.scores[:, 1, 1, 2]
    line = next(line for line in found.top("edge", 100) if line[:2] == (1, 2))
    assert line.score == pytest.approx(values.mean().item())
    assert line.error == pytest.approx((values.std() / 5**0.5).item())
    ranked = [line.score for line in found.top("edge", 100)]
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == 6
    assert len(found.top("edge", 4)) == 4
    again = HeadScores.from_npz(found.to_npz(tmp_path / "heads.npz"))
    assert again.top("edge") == found.top("edge")
    assert head_scores(model, images_of(model, n=1)).error.isnan().all()


def test_the_picture_counts_doublings_of_chance() -> None:
    to_first = torch.eye(9)[:1].expand(9, 9)  # of a head that looks at one corner alone
    images = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    model = planted({(0, 0): to_first}, image_size=3, class_token=False, pool="mean")
    found = head_scores(model, images, ["corner", "next_patch"])
    panel, other = found.plot().axes[:2]
    assert [x.get_title(loc="left") for x in (panel, other)] == ["corner, chance 0.44", "next_patch, chance 0.11"]
    expected = torch.tensor([[math.log2(9 / 4), 0, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(panel.images[0].get_array()), expected)
    assert other.images[0].get_array()[0, 0] == -5  # it never looks there: log 0 is drawn as the least
    assert found.plot("mean").axes[0].images[0].get_array()[0, 0] == pytest.approx(1)


def test_a_score_of_ones_own() -> None:
    model = model_of("base")
    first_token = Score("attention to token 0", lambda pattern, context: pattern[..., 0].mean(-1))
    found = head_scores(model, images_of(model), {"first": first_token, "class": SCORES["class_token"]})
    torch.testing.assert_close(found.scores[:, 0], found.scores[:, 1])


def test_queries_may_be_of_one_role() -> None:
    model = model_of("registers")
    images = images_of(model)
    found = head_scores(model, images, "corner", queries="class")
    pattern = record(model, images, ["blocks.0.attn.pattern"])[1]["blocks.0.attn.pattern"].detach()
    torch.testing.assert_close(found.scores[:, 0, 0], pattern[:, :, 0, [4, 6, 10, 12]].sum(-1))


def test_bad_input_is_refused() -> None:
    model = model_of("no_class_token")
    images = images_of(model)
    with pytest.raises(PrismaError, match="'class_token' cannot be computed here: it needs a class token"):
        head_scores(model, images, ["class_token"])
    with pytest.raises(PrismaError, match="expected query tokens that this model has; found 'class'"):
        head_scores(model, images, queries="class")
    with pytest.raises(PrismaError, match="expected a role of tokens"):
        head_scores(model, images, queries="cls")
    with pytest.raises(
        PrismaError, match=r"expected masks with a number for each patch, \[2, 9\] or .*; found \[2, 6, 6\]"
    ):
        head_scores(model, images, masks=torch.zeros(2, 6, 6))
    with pytest.raises(PrismaError, match="expected masks to be shares of a patch, from 0 to 1"):
        head_scores(model, images, masks=torch.full((2, 9), 255))
    found = head_scores(model, images, ["object", "edge"], masks=torch.zeros(2, 9))
    with pytest.raises(PrismaError, match="'object' is undefined: no image has"):
        found.top("object")
    with pytest.raises(PrismaError, match="'corner' was not computed; the nearest that were: "):
        found.top("corner")
