"""Runs on some of the patches: against whole runs on changed pixels, and against attention that is masked."""

from typing import Any

import pytest
import torch
from torch import Tensor

from prisma import Logit, PrismaError, ViT, run
from prisma.analysis.attribution.games import TokenGame, absence_of, can_be_empty
from prisma.analysis.attribution.questions import Neuron
from prisma.vit import patches_of
from tests.variants import images_of, model_of

TARGET = Logit(1)


def game_of(variant: str, absent: str, target: Any = TARGET, **options: Any) -> TokenGame:
    model = model_of(variant)
    images = images_of(model, n=2)
    return TokenGame(model, images, torch.randn_like(images), target, absent=absent, **options)


def coalitions(game: TokenGame, n: int = 5) -> Tensor:
    drawn = torch.rand(n, game.n_patches, generator=torch.Generator().manual_seed(3)) < 0.5
    drawn[:, 0] |= ~drawn.any(1)
    return drawn


@pytest.mark.parametrize("variant", ["base", "norm_patches", "norm_embed", "cut_edge", "divided", "video"])
def test_the_baseline_stands_in_the_pixels_of_absent_patches(variant: str) -> None:
    game = game_of(variant, "baseline", batch=2)
    present = coalitions(game)
    marks = torch.arange(game.n_patches, dtype=torch.float64).add(1)
    ones = torch.zeros_like(game.images[:1]).requires_grad_()
    where = torch.autograd.grad((patches_of(game.config, ones) * marks[:, None]).sum(), ones)[0][0]  # patch + 1, or 0
    for image in range(2):
        inside = torch.stack([torch.isin(where, marks[row]) for row in present])
        pixels = torch.where(inside, game.images[image], game.baseline[image])
        expected = game.vit(pixels)[:, 1]
        torch.testing.assert_close(game.of_coalitions(image, present), expected)


def masked(model: ViT, image: Tensor, present: Tensor) -> Tensor:
    """The logits of one run in which no token attends to an absent one."""
    kept = torch.cat([torch.ones(model.config.n_prefix, dtype=torch.bool), present])
    return run(model, image[None], {"*.attn.scores": lambda x: x.masked_fill(~kept, -torch.inf)})[0]


@pytest.mark.parametrize("variant", ["base", "rotary_head_table", "score_bias", "dino_rotary", "norm_res_post"])
def test_dropping_a_token_is_masking_it_in_attention(variant: str) -> None:
    game = game_of(variant, "dropped", batch=3)
    present = torch.cat([coalitions(game), torch.zeros(1, game.n_patches, dtype=torch.bool)])
    expected = torch.stack([masked(game.vit, game.images[1], row)[1] for row in present])
    torch.testing.assert_close(game.of_coalitions(1, present), expected)


@pytest.mark.parametrize("variant", ["pool_prefix", "no_class_token", "pool_attention_prefix", "pool_class_mean"])
def test_dropped_tokens_are_not_pooled(variant: str) -> None:
    game = game_of(variant, "dropped")
    present = coalitions(game)
    for row, value in zip(present, game.of_coalitions(0, present), strict=True):
        kept = torch.cat([torch.ones(game.n_prefix, dtype=torch.bool), row])
        stream = game.vit.embed(game.images[:1])[:, kept]
        torch.testing.assert_close(game.vit.readout(game.vit.encode(stream))[0, 1], value)


def test_where_the_readout_needs_patches_none_cannot_be_all_absent() -> None:
    assert {v: can_be_empty(model_of(v).config) for v in ("base", "pool_mean", "pool_prefix", "pool_class_mean")} == {
        "base": True, "pool_mean": False, "pool_prefix": True, "pool_class_mean": False,
    }  # fmt: skip
    base = model_of("base").config
    assert absence_of(base, None) == "dropped" and absence_of(base, None, torch.zeros(1)) == "baseline"
    assert {absence_of(model_of(v).config, None) for v in ("divided", "pool_mean")} == {"baseline"}
    with pytest.raises(PrismaError, match="no baseline where patches are dropped; found one"):
        absence_of(base, "dropped", torch.zeros(1))
    with pytest.raises(PrismaError, match="dropped or baseline; found 'grey'"):
        absence_of(base, "grey")
    game = game_of("pool_mean", "dropped")
    with pytest.raises(PrismaError, match=r"a readout that works without any patch.*use absent='baseline'"):
        game.of_coalitions(0, torch.zeros(1, 9, dtype=torch.bool))


def test_what_cannot_be_dropped_is_refused() -> None:
    with pytest.raises(PrismaError, match="can be left out; found divided attention"):
        game_of("divided", "dropped")
    with pytest.raises(PrismaError, match="found a target at token 3"):
        game_of("base", "dropped", Neuron("blocks.0.mlp.post", 1, token=3))
    game = game_of("rotary_head_table", "dropped", Neuron("blocks.1.mlp.post", 1, token=None))
    with pytest.raises(PrismaError, match="no mean over tokens where keys are masked"):
        game.of_coalitions(0, coalitions(game))


def test_a_neuron_of_a_mean_over_present_tokens() -> None:
    neuron = Neuron("blocks.1.mlp.post", 1, token=None)
    game = game_of("base", "dropped", neuron)
    everything = torch.ones(1, 9, dtype=torch.bool)
    torch.testing.assert_close(game.of_coalitions(1, everything)[0], game.whole[1])


def test_sums_over_the_pixels_of_a_patch() -> None:
    game = game_of("cut_edge", "baseline")
    found = game.by_token(game.images)
    assert found.shape == (2, game.config.n_tokens) and not found[:, 0].any()
    rows, columns = game.config.patch_sides
    torch.testing.assert_close(found[1, 2], game.images[1, :, rows : 2 * rows, :columns].sum())
