"""How many inputs fit in a pass, and a metric of the images of one pass is the metric of all images, in their rows."""

import pytest
import torch

from prisma import LogitDiff, PrismaError, Probability, Rank
from prisma.batching import PASS_BYTES, block_memory, inputs_per_pass, measure_rows, metric_gradient
from tests.variants import model_of, tower_of

LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
METRIC = LogitDiff([0, 1, 2, 3, 0], [1, 2, 3, 0, 2])
ROWS = (slice(0, 2), slice(2, 4), slice(4, 5), slice(0, 5), torch.tensor([1, 3]))


def test_a_pass_is_chosen_by_memory() -> None:
    small, deep = model_of("base"), model_of("base", d_model=1200, n_heads=12, image_size=48, patch_size=2)
    assert 1 <= inputs_per_pass(deep) < inputs_per_pass(small) <= 4096
    assert inputs_per_pass(deep) * block_memory(deep) <= PASS_BYTES < (inputs_per_pass(deep) + 1) * block_memory(deep)
    assert inputs_per_pass(tower_of("base")) >= 1
    assert inputs_per_pass(small, 3, memory=PASS_BYTES) == 3
    assert inputs_per_pass(small, memory=PASS_BYTES // 7) == 7 and inputs_per_pass(small, memory=2 * PASS_BYTES) == 1
    with pytest.raises(PrismaError, match="expected batch to be at least 1; found 0"):
        inputs_per_pass(small, 0)


def test_half_the_precision_takes_half_the_memory() -> None:
    model = model_of("base")
    assert block_memory(model) == 2 * block_memory(model.float())


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_the_metric_of_a_pass_is_that_of_all_images(rows: slice | torch.Tensor) -> None:
    whole, leaf = METRIC(LOGITS), LOGITS.clone().requires_grad_()
    METRIC(leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(measure_rows(METRIC, LOGITS[rows], rows, 5, torch.zeros(5, 4)), whole[rows])
    if isinstance(rows, slice):
        assert torch.equal(measure_rows(METRIC, LOGITS[rows], rows, 5), whole[rows])
        values, gradient = metric_gradient(METRIC, LOGITS[rows], rows, 5)
        assert torch.equal(gradient, leaf.grad[rows]) and torch.equal(values, whole[rows])


def test_a_metric_that_looks_at_all_images_sees_the_others_as_given() -> None:
    def above_mean(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 0] - logits[:, 0].mean()

    rows = torch.tensor([1, 3])
    changed = LOGITS.clone()
    changed[rows] = 2.0
    assert torch.equal(measure_rows(above_mean, torch.full((2, 4), 2.0), rows, 5, LOGITS), above_mean(changed)[rows])


def test_a_metric_without_a_gradient_is_refused() -> None:
    with pytest.raises(PrismaError, match=r"a metric that has a gradient; found Rank\(target=0\)"):
        metric_gradient(Rank(0), LOGITS[:2], slice(0, 2), 2)
    assert metric_gradient(Probability(0), LOGITS[:2], slice(0, 2), 2)[1].shape == (2, 4)
