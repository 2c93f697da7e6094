"""Pixels become inputs and come back."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.features.scaled import Scaled


class Rectangle(Scaled):
    shape = (2, 3, 5)


def test_pixels_are_inputs_between_those_of_black_and_white() -> None:
    scaled = Rectangle([(-2.0, 2.0), (0.5, 1.5)], torch.device("cpu"), torch.float64)
    pixels = torch.rand(4, 2, 3, 5, dtype=torch.float64)
    inputs = scaled.normalise(pixels)
    by_hand = torch.stack([-2 + 4 * pixels[:, 0], 0.5 + pixels[:, 1]], 1)
    assert torch.allclose(inputs, by_hand, rtol=0, atol=1e-6) and inputs.dtype == torch.float64
    assert torch.allclose(scaled.pixels(inputs), pixels, rtol=0, atol=1e-6)
    assert torch.equal(scaled.pixels(inputs + 100), torch.ones_like(pixels)), "a picture has no numbers above white"
    scaled.expect_inputs(inputs)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (torch.zeros(1, 2, 5, 3), r"expected data \[image, 2, 3, 5\] as floats"),
        (torch.zeros(1, 2, 3, 5, dtype=torch.int64), "of int64"),
        (torch.full((1, 2, 3, 5), 9.0), "from black, which is 0 here, to white, which is 1; found 2.75 to 8.5"),
        (torch.full((1, 2, 3, 5), torch.nan), "found nan to nan"),
    ],
)
def test_what_is_no_input_is_refused(inputs: torch.Tensor, sentence: str) -> None:
    scaled = Rectangle([(-2.0, 2.0), (0.5, 1.5)], torch.device("cpu"), torch.float32)
    with pytest.raises(PrismaError, match=sentence):
        scaled.expect_inputs(inputs)
