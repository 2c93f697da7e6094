"""Numbers over images: means, their errors, and bootstrap intervals."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.fields import conform

MOST = 10**9  # images in all draws of an interval: some minutes, and 8 GB

DRAWS = 1000
"""How many times a bootstrap draws the images anew."""


def bootstrap_interval(
    statistic: Callable[[Tensor], Tensor | float],
    images: int,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Tensor:
    """Between which values does a number stay when other images are drawn? The percentiles of a bootstrap over images.

    An interval that leaves out 0 (or 1, for a ratio) is evidence that the number is not an accident of these images. It
    says nothing about images of another kind, and a few images give too narrow an interval.

    Args:
        statistic: indices of images [image], drawn with replacement -> the number, or an array of them.
        images: how many images (or pairs) there are.
        level: the share of the draws between the two ends.
        draws, seed: how often images are drawn, and the seed; the same settings give the same interval.

    Returns:
        [2, ...]: the lower and the upper end; NaN where a draw gave NaN.

    Raises:
        PrismaError: `level` is not between 0 and 1, or there are no images or no draws.

    Source: Efron 1979, Bootstrap Methods: Another Look at the Jackknife.
    """
    level = level.item() if isinstance(level, np.generic) else level
    level, images = conform("level", level, float), conform("images", images, int)
    draws, seed = conform("draws", draws, int), conform("seed", seed, int)
    if not 0 < level < 1 or images < 1 or draws < 1:
        raise PrismaError(
            f"expected a level between 0 and 1, and at least one image and draw; found {level=}, {images=}, {draws=}"
        )
    if draws * images > MOST:
        raise PrismaError(f"expected at most {MOST:,} images in all draws; found {draws:,} draws of {images:,} images")
    rows = torch.randint(images, (draws, images), generator=torch.Generator().manual_seed(seed))
    found = torch.stack([torch.as_tensor(statistic(some)).double() for some in rows])
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=found.dtype, device=found.device)
    return torch.quantile(found, ends, dim=0)


def mean_interval(values: Tensor, *, level: float = 0.95) -> Tensor:
    """Between which values does a mean over images stay when others are drawn? `bootstrap_interval` of the mean.

    Images without a number (NaN) are left out, for the mean is over those that have one.

    Args:
        values: [image, ...], of which each column may leave out other images.

    Returns:
        [2, ...]; NaN where no image has a number.

    Raises:
        PrismaError: `level` is not between 0 and 1.
    """
    columns = values.double().reshape(len(values), -1)
    patterns, group = (~columns.isnan()).unique(dim=1, return_inverse=True)
    ends = columns.new_full((2, columns.shape[1]), torch.nan)
    for i, there in enumerate(patterns.mT):
        own = columns[there][:, group == i]  # of the images that have these numbers
        if len(own):
            ends[:, group == i] = bootstrap_interval(partial(_mean_of, own), len(own), level=level)
    return ends.view(2, *values.shape[1:])


def _mean_of(values: Tensor, rows: Tensor) -> Tensor:
    return values[rows].mean(0)


def standard_error(values: Tensor) -> Tensor:
    """Standard error of the mean over the first axis, leaving out NaN; NaN for fewer than two values."""
    return mean_and_error(values)[1]


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first axis and its standard error, leaving out NaN; the error of fewer than two values is NaN."""
    n, mean = (~values.isnan()).sum(0), values.nanmean(0)
    squares = (values - mean).square().nansum(0)
    return mean, torch.where(n > 1, (squares / (n * (n - 1)).clamp(min=1)).sqrt(), torch.nan)


def share_of(effect: Tensor, total: Tensor) -> Tensor:
    """`effect / total`. Raises PrismaError if there is no total effect."""
    if total.abs() <= 1e-6 * effect.abs().max().clamp(min=1e-6):
        raise PrismaError(
            f"expected clean and corrupt runs that differ in the metric; found a total effect of {total.item():.2g}"
        )
    return effect / total


def wilcoxon(differences: Tensor) -> Tensor:
    """How likely are such differences of pairs if they are as often negative as positive? One-sided, towards positive.

    The signed-rank test: 0 is a sure sign that they are positive, 1/2 is none. NaN and differences of 0 are left out;
    1 where nothing is left. Equal sizes share their ranks; their sum is taken as normal, which ten pairs justify.

    Args:
        differences: [pair, ...].

    Returns:
        [...]: the p-value of each column.

    Source: Wilcoxon 1945, Individual Comparisons by Ranking Methods.
    """
    columns = differences.double().reshape(len(differences), -1)
    return torch.stack([_signed_ranks(x[~x.isnan() & (x != 0)]) for x in columns.T]).view(differences.shape[1:])


def _signed_ranks(x: Tensor) -> Tensor:
    n = len(x)
    if not n:
        return x.new_ones(())
    _, group, size = x.abs().unique(return_inverse=True, return_counts=True)
    rank = (size.cumsum(0) - (size - 1) / 2)[group]  # the mean of the ranks of equal sizes
    mean, variance = n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24 - (size**3 - size).double().sum() / 48
    return torch.special.ndtr((mean - rank[x > 0].sum()) / variance.sqrt())


def welch(first: Tensor, second: Tensor) -> float:
    """How likely are two means as far apart, in either direction, if the true means are equal? Welch's t-test.

    It takes the samples as independent and normal: where they share images they are not, and the number is too small.

    Args:
        first, second: [sample], two samples or more of each.

    Returns:
        the two-sided p-value, from 0 to 1.

    Source: Welch 1947, The generalization of Student's problem.
    """
    groups = [x.double() for x in (first, second)]
    difference = (groups[0].mean() - groups[1].mean()).abs()
    errors = torch.stack([x.var() / len(x) for x in groups])
    if not errors.sum():
        return float(difference == 0)
    freedom = errors.sum() ** 2 / sum(e**2 / (len(x) - 1) for e, x in zip(errors, groups, strict=True))
    turn = torch.atan(difference / errors.sum().sqrt() / freedom.sqrt())  # t = sqrt(freedom) tan(turn)
    return float(_cosine_powers(turn, freedom) / _cosine_powers(torch.zeros_like(turn), freedom))


def _cosine_powers(start: Tensor, freedom: Tensor) -> Tensor:
    """The integral of cos^(freedom - 1) from `start` to a right angle, by the midpoint rule."""
    width = torch.pi / 2 - start
    angles = start + width * (torch.arange(20_000, dtype=torch.float64, device=start.device) + 0.5) / 20_000
    return width * angles.cos().pow(freedom - 1).mean()
