"""Images of phases alone, and pictures to take magnitudes from."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.features.images import described
from prisma.features.maco import MACO, natural_pictures, resized


def test_the_magnitude_of_maco_is_that_of_the_data_whatever_the_phase() -> None:
    data, shape = torch.randn(20, 3, 8, 9), (3, 8, 9)
    kind = MACO().of_data(data)
    (phase,) = kind.begin(2, shape, torch.Generator().manual_seed(0))
    x = kind.draw((phase,), shape)
    wanted = torch.fft.rfft2(data, norm="ortho").abs().mean(0)
    found = torch.fft.rfft2(x, norm="ortho").abs()
    assert torch.allclose(found, wanted.expand_as(found), atol=1e-4)
    assert described(kind) == "MACO(pictures=None, magnitude=[3, 8, 5], lr=0.2)"
    given = MACO(magnitude=torch.ones(3, 8, 5)).of_data(data)
    assert torch.equal(given.magnitude, torch.ones(3, 8, 5))  # type: ignore[arg-type]
    for kind, message in ((MACO(), "expected data, pictures or a magnitude for MACO; found none"),):
        with pytest.raises(PrismaError, match=message):
            kind.of_data(None)
    with pytest.raises(
        PrismaError, match=r"expected a magnitude \[3, 8, 4\] for images \[3, 8, 6\]; found \[3, 8, 5\]"
    ):
        given.draw((phase,), (3, 8, 6))


def test_natural_pictures_and_other_sizes() -> None:
    colour, grey = natural_pictures((3, 16, 12), crops=1), natural_pictures((1, 8, 8), crops=2, seed=3)
    assert colour.shape == (8, 3, 16, 12) and grey.shape == (16, 1, 8, 8)
    assert colour.min() >= 0 and colour.max() <= 1 and torch.equal(colour, natural_pictures((3, 16, 12), crops=1))
    assert resized(colour, (3, 8, 8)).shape == (8, 3, 8, 8) and resized(colour, (3, 16, 12)) is colour
    with pytest.raises(PrismaError, match="expected pictures with 1 channels; found 3"):
        resized(colour, (1, 8, 8))
