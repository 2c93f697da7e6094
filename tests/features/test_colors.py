"""Independent colours of data."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.features.colors import Colors, expect_pictures, logit


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_colours_of_the_data_are_independent_and_of_unit_spread(channels: int) -> None:
    torch.manual_seed(0)
    mixed = torch.randn(40, channels, 6, 5).transpose(1, -1) @ torch.randn(channels, channels)
    pictures = torch.sigmoid(0.5 * mixed.transpose(1, -1) + 0.3)
    colors = Colors.of(pictures)
    x = colors.colors(pictures).movedim(1, -1).flatten(0, 2)
    assert torch.allclose(torch.cov(x.T, correction=0).view(channels, channels), torch.eye(channels), atol=1e-3)
    assert x.mean(0).abs().max() < 1e-4
    inside = pictures.clamp(0.02, 0.98)
    assert torch.allclose(colors.pixels(colors.colors(pictures)), inside, atol=1e-5)


def test_every_colour_stays_in_reach_of_grey_data() -> None:
    grey = torch.rand(5, 1, 4, 4).expand(-1, 3, -1, -1)
    colors = Colors.of(grey)
    red = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1)
    x = colors.colors(red)
    assert torch.allclose(colors.pixels(x), red, atol=1e-4) and torch.isfinite(x).all()


def test_without_pictures_each_channel_is_itself_around_grey() -> None:
    colors = Colors.plain(2)
    assert torch.allclose(colors.pixels(torch.zeros(1, 2, 2, 2)), torch.full((1, 2, 2, 2), 0.5))
    assert torch.allclose(colors.colors(torch.full((1, 2, 1, 1), 0.75)), logit(torch.full((1, 2, 1, 1), 0.75)))


def test_what_are_no_pictures_is_refused() -> None:
    for wrong, message in (
        (torch.full((2, 3, 4, 4), 0.5), "more than one colour"),
        (torch.zeros(3, 4, 4), r"expected pictures \[n, channel, height, width\]"),
        (torch.rand(1, 3, 2, 2) + 1, r"expected pictures in \[0, 1\], before normalisation"),
    ):
        with pytest.raises(PrismaError, match=message):
            Colors.of(wrong)
    with pytest.raises(PrismaError, match=r"expected pictures \[n, 3, 2, 2\] as floats; found \[1, 1, 2, 2\]"):
        expect_pictures(torch.rand(1, 1, 2, 2), (3, 2, 2))
