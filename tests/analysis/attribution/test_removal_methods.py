"""Occlusion and RISE, on games whose answers are known."""

import torch
from captum.attr import FeatureAblation
from torch import Tensor

from prisma import Logit
from prisma.analysis.attribution.games import TokenGame
from prisma.analysis.attribution.removal_methods import halves, occlusion, rise
from tests.variants import images_of, model_of

WORTH = torch.tensor([3.0, -1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
EACH = torch.eye(5, dtype=torch.bool)


class Additive:
    """A game in which each patch adds its worth."""

    def of_coalitions(self, image: int, present_KP: Tensor) -> Tensor:
        return present_KP.double() @ WORTH + image


def test_occlusion_is_the_worth_of_each_player() -> None:
    torch.testing.assert_close(occlusion(Additive(), 1, EACH), WORTH)  # type: ignore[arg-type]
    pairs = torch.tensor([[True, True, False, False, False], [False, False, True, True, True]])
    torch.testing.assert_close(occlusion(Additive(), 0, pairs), torch.tensor([2.0, 2.5], dtype=torch.float64))  # type: ignore[arg-type]


def test_occlusion_is_what_captum_finds() -> None:
    model = model_of("base")
    images = images_of(model)
    game = TokenGame(model, images, torch.zeros_like(images), Logit(2), absent="baseline")
    mask = torch.arange(9).view(3, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    theirs = FeatureAblation(model).attribute(images, target=2, feature_mask=mask)[:, 0, ::2, ::2].flatten(1)
    ours = torch.stack([occlusion(game, i, torch.eye(9, dtype=torch.bool)) for i in range(2)])
    torch.testing.assert_close(ours, theirs.double())


def test_rise_orders_players_by_what_they_add() -> None:
    found = rise(Additive(), 0, EACH, 4000, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    present = halves(5, 4000, torch.Generator().manual_seed(0)).double()
    expected = torch.stack([(present[row.bool()] @ WORTH).mean() for row in present.T])  # one player after the other
    torch.testing.assert_close(found, expected)
    assert torch.equal(found.argsort(), WORTH.argsort())


def test_every_second_run_has_the_other_half() -> None:
    drawn = halves(6, 11, torch.Generator().manual_seed(0))
    assert drawn.shape == (11, 6) and (drawn.sum(1) == 3).all()
    assert torch.equal(drawn[1::2], ~drawn[:-1:2])
    assert halves(1, 2, torch.Generator()).tolist() == [[True], [True]]
    odd = halves(5, 2, torch.Generator().manual_seed(0))
    assert odd.any(0).all() and odd.sum(1).tolist() == [3, 3]  # no player is in neither, and none in a larger run
