"""Where the gradient of a metric says nothing about how the metric changes."""

import pytest
import torch

from prisma import Logit, PrismaError
from prisma.slope import expect_slope


def test_a_gradient_of_zero_is_refused_where_the_metric_changes() -> None:
    """The reach of a gradient bounds the change that it can account for; a change of zero needs none."""
    expect_slope(Logit(0), torch.tensor([1.0, 1e-9, 0.0]), torch.tensor([5.0, -1e-9, 0.0]), "")
    found = r"found Logit, with a gradient of zero for 1 of 2 images \(the first is 1\), .* changes by -0.5 .*; do so"
    with pytest.raises(PrismaError, match=found):
        expect_slope(Logit(0), torch.tensor([1.0, 1e-6]), torch.tensor([1.0, -0.5]), "do so")
