"""Numbers over images."""

import numpy as np
import pytest
import torch
from scipy import stats

from prisma import PrismaError
from prisma.analysis.statistics import (
    bootstrap_interval,
    mean_and_error,
    mean_interval,
    share_interval,
    share_of,
    standard_error,
    welch,
    wilcoxon,
    wilson_interval,
)


def test_an_interval_of_any_statistic_of_images() -> None:
    """Of the largest of 50 images: a draw leaves it out with a chance of (49 / 50) ** 50, about 36 %."""
    found = bootstrap_interval(lambda rows: rows.max().item(), 50)
    assert found[1] == 49 and 45 <= found[0] < 49
    assert bootstrap_interval(lambda rows: torch.ones(2), 1).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(PrismaError, match=r"a level between 0 and 1, .* found level=95.0, images=3, draws=1000"):
        bootstrap_interval(lambda rows: 0.0, 3, level=95)


def test_a_mean_and_its_error_leave_out_nan() -> None:
    values = torch.tensor([[1.0, 5.0, torch.nan], [3.0, torch.nan, torch.nan], [8.0, torch.nan, torch.nan]])
    mean, error = mean_and_error(values)
    torch.testing.assert_close(mean, torch.tensor([4.0, 5.0, torch.nan]), equal_nan=True)
    torch.testing.assert_close(error[0], torch.tensor([1.0, 3.0, 8.0]).std() / 3**0.5)
    assert error[1:].isnan().all() and torch.equal(standard_error(values).isnan(), error.isnan())


def test_the_interval_of_a_mean_leaves_out_images_without_a_number() -> None:
    """Also where nearly none has one, and a draw of all images would often have none."""
    values = torch.full((20, 3), torch.nan)
    values[:2, 0], values[:, 1] = torch.tensor([0.0, 1.0]), torch.arange(20.0)
    found = mean_interval(values)
    assert found[:, 0].tolist() == [0, 1] and found[:, 2].isnan().all()
    assert torch.equal(found[:, 1], bootstrap_interval(lambda rows: rows.double().mean(), 20))
    assert torch.equal(mean_interval(values[:, 1]), found[:, 1])


def test_groups_are_drawn_whole() -> None:
    """Twelve copies of two numbers say as much as the two; groups of one are images."""
    two = torch.tensor([0.0, 1.0, torch.nan])
    twelve, groups = two.repeat_interleave(6), ["a"] * 6 + ["b"] * 6 + ["c"] * 6
    assert mean_interval(twelve, groups=groups).tolist() == mean_interval(two).tolist() == [0, 1]
    torch.testing.assert_close(standard_error(twelve, groups), standard_error(two))
    values = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    values[:5, 1] = torch.nan
    assert torch.equal(mean_interval(values, groups=list(range(20))), mean_interval(values))
    torch.testing.assert_close(standard_error(values, list(range(20))), standard_error(values))
    assert standard_error(values, ["one"] * 20).isnan().all()
    uneven = standard_error(torch.tensor([1.0, 2.0, 9.0]), ["a", "a", "b"])  # sums of deviations: -5 and 5
    assert uneven.item() == pytest.approx((50 * 2) ** 0.5 / 3)


def test_wilson_is_that_of_scipy() -> None:
    from scipy.stats import binomtest

    for count, n in ((0, 10), (3, 10), (10, 10), (199, 200)):
        expected = binomtest(count, n).proportion_ci(method="wilson")
        found = wilson_interval(torch.tensor(count / n), torch.tensor(n))
        assert found.tolist() == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert wilson_interval(torch.tensor(torch.nan), torch.tensor(0)).isnan().all()


def test_the_interval_of_shares_is_the_wider_of_two() -> None:
    ones = torch.ones(8, 1)
    assert torch.equal(share_interval(ones, torch.tensor([200])), wilson_interval(ones[0], torch.tensor([200])))
    apart = torch.tensor([0.0] * 4 + [1.0] * 4)
    assert torch.equal(share_interval(apart, torch.tensor(8000)), mean_interval(apart))


def test_a_share_needs_a_total() -> None:
    assert share_of(torch.tensor([1.0, -2.0]), torch.tensor(4.0)).tolist() == [0.25, -0.5]
    with pytest.raises(PrismaError, match="runs that differ in the metric; found a total effect of 1e-09"):
        share_of(torch.tensor([1.0]), torch.tensor(1e-9))


def test_more_draws_than_memory_are_refused_and_numbers_of_numpy_are_numbers() -> None:
    with pytest.raises(PrismaError, match="expected at most 1,000,000,000 images in all draws"):
        bootstrap_interval(lambda rows: rows.double().mean(), 3, draws=10**30)
    found = bootstrap_interval(lambda rows: rows.double().mean(), 3, level=np.float64(0.9))  # type: ignore[arg-type]
    assert torch.equal(found, bootstrap_interval(lambda rows: rows.double().mean(), 3, level=0.9))


def test_wilcoxon_is_that_of_scipy() -> None:
    from scipy.stats import wilcoxon as slow

    draw = torch.Generator().manual_seed(0)
    values = (4 * torch.randn(30, 3, generator=draw, dtype=torch.float64)).round() / 4  # with ties and zeros
    values += torch.tensor([0.0, 0.3, -0.2])
    values[4, 1] = torch.nan
    for column, found in enumerate(wilcoxon(values).tolist()):
        x = values[:, column][~values[:, column].isnan()].numpy()
        expected = slow(x, alternative="greater", method="asymptotic", correction=False).pvalue
        assert found == pytest.approx(float(expected), rel=1e-9)
    assert wilcoxon(torch.zeros(4)).item() == 1


@pytest.mark.parametrize(("first", "second"), [((20, 0.3), (15, 0.0)), ((4, 1.0), (9, 0.0)), ((30, 0.0), (30, 0.0))])
def test_welch_is_scipys(first: tuple[int, float], second: tuple[int, float]) -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(n).double() * (1 + mean) + mean for n, mean in (first, second))
    expected = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).pvalue
    assert welch(a, b) == pytest.approx(expected, rel=1e-6)


def test_welch_of_samples_that_do_not_vary() -> None:
    ones = torch.ones(3)
    assert (welch(ones, ones), welch(ones, 0 * ones)) == (1, 0)
