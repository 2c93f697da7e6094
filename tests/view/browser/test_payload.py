"""What a viewer reads is what was packed, to the stated error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma import PrismaError
from prisma.view.browser import View, attention_rows, fractions, numbers, pictures
from tests.app.unpack import attention, unpack


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_fractions_are_right_to_8e_6(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    found = unpack(View({}, {"x": fractions(x)}).pack())[1]["x"]
    assert found.shape == x.shape and (found - x).abs().max() <= 8e-6


def test_numbers_keep_their_float32_bits_and_their_order() -> None:
    x, y = torch.randn(2, 3, 4), torch.randn(5)
    facts, arrays = unpack(
        View({"é": "${x}"}, {"x": numbers(x), "odd": pictures(torch.rand(1, 1, 3, 3)), "y": numbers(y)}).pack()
    )
    assert facts == {"é": "${x}"}
    assert torch.equal(arrays["x"].float(), x) and torch.equal(arrays["y"].float(), y)


@given(st.integers(0, 2), st.integers(1, 30), st.floats(0.1, 30))
def test_attention_is_right_to_a_share_of_the_largest_patch(prefix: int, patches: int, sharp: float) -> None:
    scores = torch.randn(2, 3, prefix + patches, generator=torch.Generator().manual_seed(patches), dtype=torch.float64)
    pattern = (sharp * scores).softmax(-1)
    found = attention(unpack(View({}, attention_rows("pattern", pattern, prefix)).pack())[1])
    largest = pattern[..., prefix:].amax(-1, keepdim=True)
    assert ((found - pattern).abs() <= 0.002 * largest + 1e-7).all()
    assert torch.allclose(found[..., :prefix], pattern[..., :prefix], atol=1e-7)


def test_pictures_are_bytes_by_rows() -> None:
    x = torch.rand(2, 3, 4, 5)
    found = unpack(View({}, {"x": pictures(x)}).pack())[1]["x"]
    assert torch.equal(found, (x.double() * 255).round().permute(0, 2, 3, 1))


def test_equal_views_have_equal_bytes() -> None:
    assert (
        View({"a": 1}, {"x": fractions(torch.full((3,), 0.5))}).pack()
        == View({"a": 1}, {"x": fractions(torch.full((3,), 0.5))}).pack()
    )


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_fraction_is_refused(bad: float) -> None:
    for pack in (fractions, lambda x: attention_rows("x", x[None], 0)):
        with pytest.raises(PrismaError, match="between 0 and 1"):
            pack(torch.tensor([0.5, bad]))


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(PrismaError, match="finite"):
        numbers(torch.tensor([1.0, float("nan")]))
