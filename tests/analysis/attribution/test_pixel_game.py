"""Squares of pixels as players, against runs on changed pixels."""

import pytest
import torch
from torch import nn

from prisma import Logit, PrismaError
from prisma.analysis.attribution.pixel_game import PixelGame
from prisma.analysis.attribution.questions import Neuron


def test_a_network_of_pixels_has_squares_as_players() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double()
    images = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    game = PixelGame(network, images, torch.zeros_like(images), Logit(2), patch=3)
    present = torch.tensor([[True, False, True, False]])
    pixels = images[1:].clone()
    pixels[..., 3:] = 0
    torch.testing.assert_close(game.of_coalitions(1, present), network(pixels)[:, 2])
    torch.testing.assert_close(
        game.by_token(images)[0], images[0].unflatten(-1, (2, 3)).unflatten(-3, (2, 3)).sum((0, 2, 4)).flatten()
    )
    with pytest.raises(PrismaError, match="a patch that divides the sides of the images"):
        PixelGame(network, images, images, Logit(0), patch=4)
    with pytest.raises(PrismaError, match="of floating-point pixels"):
        PixelGame(network, images[0], images[0], Logit(0), patch=3)
    with pytest.raises(PrismaError, match="found a site"):
        PixelGame(network, images, images, Neuron("logits", 0), patch=3).of_pixels(images, torch.arange(2))
