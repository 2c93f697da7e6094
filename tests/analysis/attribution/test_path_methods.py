"""Integrated gradients against captum and against what must add up; gradient SHAP against integrated gradients."""

from dataclasses import replace

import pytest
import torch
from captum.attr import IntegratedGradients

from prisma import Logit, LogitDiff, PrismaError, Rank
from prisma.analysis.attribution.games import TokenGame
from prisma.analysis.attribution.path_methods import gradient_shap, integrated_gradients
from tests.variants import images_of, model_of

METRIC = LogitDiff([0, 1, 2], [1, 2, 3])


def game_of(variant: str, batch: int | None = None) -> TokenGame:
    model = model_of(variant)
    images = images_of(model, n=3)
    return TokenGame(model, images, 0.1 * torch.randn_like(images), METRIC, batch)


@pytest.mark.parametrize("variant", ["base", "cut_edge", "pool_attention"])
def test_it_is_what_captum_finds(variant: str) -> None:
    game = game_of(variant, batch=2)
    game = replace(game, target=LogitDiff(0, 1))  # captum shows the rows of all steps to the function at once
    theirs = IntegratedGradients(lambda x: LogitDiff(0, 1)(game.model(x)))
    pixels = theirs.attribute(game.images, game.baseline, n_steps=7, method="gausslegendre", internal_batch_size=None)
    torch.testing.assert_close(integrated_gradients(game, 7)[0], game.by_token(pixels))


@pytest.mark.parametrize("variant", ["base", "norm_res_post", "dino", "clip"])
def test_it_adds_up_to_the_change(variant: str) -> None:
    game = game_of(variant)
    found, change = integrated_gradients(game, 64)
    torch.testing.assert_close(found.sum(1), change, rtol=0, atol=1e-6)
    torch.testing.assert_close(change, METRIC(game.model(game.images)) - METRIC(game.model(game.baseline)))


def test_gradient_shap_nears_integrated_gradients() -> None:
    game = game_of("base")
    exact, _ = integrated_gradients(game, 50)
    few, many = (gradient_shap(game, steps, seed=1)[0] for steps in (5, 100))
    assert (many - exact).abs().max() < 0.02 * exact.abs().max()
    assert (few - exact).abs().max() > 3 * (many - exact).abs().max()


def test_gradient_shap_over_baselines_is_the_mean_of_theirs() -> None:
    game = game_of("base")
    baselines = torch.randn_like(game.images[:2])
    games = [TokenGame(game.model, game.images, b.expand_as(game.images), METRIC) for b in baselines]
    maps = torch.stack([integrated_gradients(one, 20)[0] for one in games])
    found, change = gradient_shap(game, 200, 0, baselines)
    assert (found - maps.mean(0)).abs().max() < 0.15 * maps.abs().max()
    assert (found.sum(1) - change).abs().max() < 0.25 * maps.abs().max()


def test_a_target_without_a_gradient_is_refused() -> None:
    game = game_of("base")
    flat = TokenGame(game.model, game.images, game.baseline, Rank(0))
    with pytest.raises(PrismaError, match="expected a target that has a gradient; found Rank"):
        integrated_gradients(flat, 2)
    assert integrated_gradients(TokenGame(game.model, game.images, game.images, Logit(0)), 2)[0].abs().max() == 0
