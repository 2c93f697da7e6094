"""Pairs of digits: each half is a digit of the same part of the digits, with its number."""

import pytest
import torch

from prisma.data import task


@pytest.mark.parametrize(("split", "n"), [("train", 6000), ("test", 1000)])
def test_each_half_is_the_digit_that_its_factor_says(split: str, n: int) -> None:
    pairs, digits = task("pairs").splits[split], task("digits").splits[split]
    known = {image.numpy().tobytes(): label for image, label in zip(digits.images, digits.labels.tolist(), strict=True)}
    assert pairs.images.shape == (n, 1, 8, 16)
    for side, place in (("left", slice(8)), ("right", slice(8, 16))):
        halves = pairs.images[..., place].contiguous()
        assert [known[image.numpy().tobytes()] for image in halves] == pairs.factors[side].tolist()
    assert torch.equal(pairs.labels, pairs.factors["left"] + pairs.factors["right"])


def test_the_two_digits_have_nothing_to_do_with_each_other() -> None:
    factors = task("pairs").splits["train"].factors
    both = torch.stack([factors["left"], factors["right"]]).double()
    assert torch.corrcoef(both)[0, 1].abs() < 0.04
