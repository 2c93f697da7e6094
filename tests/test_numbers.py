"""Numbers: which are finite, and in which precision they are computed."""

import pytest
import torch

from prisma.numbers import are_finite, exact, first_not_finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_the_first_number_that_is_not_finite(dtype: torch.dtype, value: float) -> None:
    x = torch.zeros(4, 5, dtype=dtype)
    assert first_not_finite(x) is None
    x[2, 3], x[3, 0] = value, torch.nan
    found = first_not_finite(x.requires_grad_())
    assert found is not None
    assert (found[0], str(found[1])) == (2, str(value))
    single = first_not_finite(torch.tensor(value, dtype=dtype))
    assert single is not None and str(single[1]) == str(value)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_one_number_in_many_tensors(dtype: torch.dtype) -> None:
    """Numbers whose sum or square overflows are finite."""
    largest = torch.full((70, 9), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
    whole = torch.arange(3)
    assert are_finite([largest, whole, torch.zeros(0), torch.zeros(2, device="meta")]) and are_finite([])
    for value in (torch.nan, *(() if dtype is torch.float8_e4m3fn else (torch.inf, -torch.inf))):
        wrong = largest.clone()
        wrong.view(-1)[-1] = value
        assert not are_finite([largest, wrong, whole])
        assert first_not_finite(wrong) is not None


def test_nothing_and_whole_numbers_are_finite() -> None:
    assert first_not_finite(torch.zeros(0, 3)) is None
    assert first_not_finite(torch.ones(3, dtype=torch.long)) is None
    assert first_not_finite(torch.ones(3, dtype=torch.bool)) is None


def test_exact_is_float32_at_least() -> None:
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.long, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert exact(torch.ones(2, dtype=dtype)).dtype == expected
    x = torch.ones(2)
    assert exact(x) is x
