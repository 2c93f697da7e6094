"""Numbers over images: means, their errors, and bootstrap intervals."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.fields import conform

MOST = 10**9  # images in all draws of an interval: some minutes, and 8 GB

Z = 1.959963984540054
"""How many standard errors from the middle a normal interval of 95 % reaches."""

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


def mean_interval(values: Tensor, *, groups: Sequence[Hashable] | None = None, level: float = 0.95) -> Tensor:
    """Between which values does a mean over images stay when others are drawn? `bootstrap_interval` of the mean.

    Images without a number (NaN) are left out, for the mean is over those that have one.

    Args:
        values: [image, ...], of which each column may leave out other images.
        groups: of each image, what it shares with others, such as a subject: whole groups are drawn, because numbers of
            one group are not independent.

    Returns:
        [2, ...]; NaN where no image has a number.

    Raises:
        PrismaError: `level` is not between 0 and 1.
    """
    sums, counts = _by_group(values.double().reshape(len(values), -1), groups)
    patterns, pattern = (counts > 0).unique(dim=1, return_inverse=True)
    ends = sums.new_full((2, sums.shape[1]), torch.nan)
    for i, there in enumerate(patterns.mT):
        own = [x[there][:, pattern == i] for x in (sums, counts)]  # of the groups that have these numbers
        if there.any():
            ends[:, pattern == i] = bootstrap_interval(partial(_mean_of, *own), int(there.sum()), level=level)
    return ends.view(2, *values.shape[1:])


def _by_group(columns: Tensor, groups: Sequence[Hashable] | None) -> tuple[Tensor, Tensor]:
    """[group, column]: the sum of its numbers, and how many there are."""
    found: Sequence[Hashable] = range(len(columns)) if groups is None else groups
    number = {group: i for i, group in enumerate(dict.fromkeys(found))}
    at = torch.tensor([number[group] for group in found], device=columns.device)
    start = columns.new_zeros(len(number), columns.shape[1])
    return start.index_add(0, at, columns.nan_to_num(0)), start.index_add(0, at, (~columns.isnan()).to(columns))


def _mean_of(sums: Tensor, counts: Tensor, rows: Tensor) -> Tensor:
    return sums[rows].sum(0) / counts[rows].sum(0)


def share_interval(values: Tensor, trials: Tensor, *, groups: Sequence[Hashable] | None = None) -> Tensor:
    """Between which values does the mean of some shares stay? An interval that has a width where all shares agree.

    The wider of two of 95 %: the bootstrap over the groups (`mean_interval`), which knows how groups differ, and the
    interval of Wilson of so many trials, which knows how few there are.

    Args:
        values: [image, ...], shares from 0 to 1; NaN is left out.
        trials: [...]: of how many trials the mean is, at least.
        groups: as in `mean_interval`.

    Returns:
        [2, ...]; NaN where there are no shares.
    """
    drawn, wilson = mean_interval(values, groups=groups), wilson_interval(values.double().nanmean(0), trials)
    return torch.stack([torch.minimum(drawn[0], wilson[0]), torch.maximum(drawn[1], wilson[1])])


def wilson_interval(share: Tensor, trials: Tensor) -> Tensor:
    """Which probabilities are compatible, at 95 %, with such a share of so many trials? [2, ...]

    It has a width where none or all of the trials succeeded. NaN of no trials.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    share, trials = share.double(), trials.double()
    middle = share + Z * Z / (2 * trials)
    spread = Z * (share * (1 - share) / trials + Z * Z / (4 * trials * trials)).sqrt()
    low, high = ((middle + sign * spread) / (1 + Z * Z / trials) for sign in (-1, 1))
    return torch.stack([low.masked_fill(share == 0, 0), high.masked_fill(share == 1, 1)])


def standard_error(values: Tensor, groups: Sequence[Hashable] | None = None) -> Tensor:
    """Standard error of the mean over the first axis, leaving out NaN; NaN for fewer than two values.

    With `groups`, as in `mean_interval`, it is that of a mean over whole groups; NaN for fewer than two.
    """
    if groups is None:
        return mean_and_error(values)[1]
    columns = values.double().reshape(len(values), -1)
    sums, _ = _by_group(columns - columns.nanmean(0), groups)
    counts = _by_group(columns, groups)[1]
    n, total = (counts > 0).sum(0), counts.sum(0)
    variance = sums.square().sum(0) * n / (n - 1).clamp(min=1) / total.square()
    return torch.where(n > 1, variance.sqrt(), torch.nan).view(values.shape[1:]).to(values.dtype)


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
