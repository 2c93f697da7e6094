"""Whether the gradient of a metric says something about how the metric changes."""

from torch import Tensor

from prisma.errors import PrismaError, warn
from prisma.metrics import Metric

FLAT = 1e-4
"""A gradient that allows less than this share of the change of its metric is zero, to within rounding."""


def expect_slope(metric: Metric, reach: Tensor, change: Tensor, remedy: str) -> None:
    """Check that the gradient of a metric says something about how the metric changes.

    Args:
        reach: [image], the largest change that the gradient allows: its norm times how far the logits move.
        change: [image], how much the metric changes when the logits move that far.
        remedy: what the user can do, for the message.

    Raises:
        PrismaError: for at least half of the images the gradient is zero to within rounding although the metric
            changes, so that every effect would be zero to first order: at the smallest value of the metric, as of the
            divergence from the run itself, or where it is saturated. For fewer images it is a warning.
    """
    flat = reach < FLAT * change.abs()
    if not flat.any():
        return
    first, count = int(flat.nonzero()[0]), int(flat.sum())
    name = getattr(metric, "__name__", type(metric).__name__)
    problem = (
        f"expected a metric whose gradient is not zero where it is taken; found {name}, with a gradient of zero "
        f"for {count} of {len(flat)} images (the first is {first}), although it changes by "
        f"{change[first].item():.2g} there: to first order every effect would be zero; {remedy}"
    )
    if 2 * count >= len(flat):
        raise PrismaError(problem)
    warn(problem)
