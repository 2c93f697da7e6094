"""What a viewer reads is what was packed, to the stated error."""

import gzip

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma import PrismaError
from prisma.view.browser import fractions, numbers


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_fractions_are_right_to_8e_6(values: list[float]) -> None:
    packed = fractions(torch.tensor(values, dtype=torch.float64))
    assert (packed.type, packed.shape) == ("uint16", (len(values),))
    read = np.frombuffer(gzip.decompress(packed.data), "<u2") / 65535
    assert np.abs(read - np.array(values)).max() <= 8e-6


def test_numbers_keep_their_float32_bits_and_their_order() -> None:
    x = torch.randn(2, 3, 4)
    packed = numbers(x)
    assert (packed.type, packed.shape) == ("float32", (2, 3, 4))
    read = np.frombuffer(gzip.decompress(packed.data), "<f4").reshape(2, 3, 4)
    assert np.array_equal(read, x.numpy())


def test_equal_arrays_have_equal_bytes() -> None:
    assert fractions(torch.full((3,), 0.5)) == fractions(torch.full((3,), 0.5))


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_fraction_is_refused(bad: float) -> None:
    with pytest.raises(PrismaError, match="between 0 and 1"):
        fractions(torch.tensor([0.5, bad]))


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(PrismaError, match="finite"):
        numbers(torch.tensor([1.0, float("nan")]))


def test_rounding_of_a_softmax_is_no_error() -> None:
    assert fractions(torch.tensor([1 + 1e-7, -1e-7])).shape == (2,)
