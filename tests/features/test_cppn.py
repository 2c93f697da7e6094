"""Images as networks: what test_images says of every parameterisation, and their formula."""

import math

import pytest
import torch

from prisma.errors import PrismaError
from prisma.features.cppn import CPPN


def test_a_pixel_is_the_network_of_its_place() -> None:
    shape, kind = (2, 4, 6), CPPN(width=3, layers=1)
    numbers = [torch.randn_like(x) for x in kind.begin(1, shape, torch.Generator())]
    x = kind.draw(numbers, shape)
    row, column = 1, 5
    place = torch.tensor([(-1 + 2 * row / 3) * 4 / 6, 1.0]) * math.sqrt(3)
    bent = (place @ numbers[0][0] + numbers[1][0, 0]).atan()
    wanted = torch.cat([bent / 0.67, bent**2 / 0.6]) @ numbers[2][0] + numbers[3][0, 0]
    assert torch.allclose(x[0, :, row, column], wanted, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PrismaError, match="expected a width and layers of at least 1"):
        CPPN(width=0)
    with pytest.raises(PrismaError, match="that can begin with a picture, such as FFT; found CPPN"):
        CPPN().encode(torch.zeros(1, 1, 2, 2))
