"""How many inputs fit in a pass, and a metric of the images of one pass is the metric of all images, in their rows."""

from functools import wraps

import pytest
import torch

from prisma import KL, Logit, LogitDiff, PrismaError, Probability, Rank, Similarity, batching
from prisma.batching import (
    PASS_BYTES,
    block_memory,
    inputs_per_pass,
    measure_rows,
    measure_runs,
    metric_gradient,
    runs_per_pass,
)
from prisma.errors import NotFiniteError
from prisma.metrics import Metric, takes_runs
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


def test_on_a_gpu_runs_take_an_eighth_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("base")
    assert runs_per_pass(model) == inputs_per_pass(model) and runs_per_pass(model, 3) == 3
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * 2**30)
    on_gpu = torch.device("cuda", 0)
    for free, expected in ((70, 8), (61, 8), (60, 4), (0, 0.25)):  # GiB that the driver has, and of a pass
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * 2**30, 80 * 2**30))
        assert batching._free_bytes(on_gpu) == expected * 2**30
    assert inputs_per_pass(model, within=2 * block_memory(model)) == 2


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


RUNS = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
OURS = {
    "LogitDiff": METRIC,
    "Logit": Logit(2),
    "Probability": Probability([0, 1, 2, 3, 0]),
    "Rank": Rank(1),
    "KL": KL(LOGITS),
    "KL of one": KL(LOGITS[:1]),
    "Similarity": Similarity(LOGITS[0]),
    "Similarity of each": Similarity(LOGITS),
}


@pytest.mark.parametrize("metric", OURS.values(), ids=OURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_metric_of_many_runs_is_that_of_each(
    metric: Metric, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: each image is computed alone."""
    runs = RUNS.to(dtype)
    runs[2, 1] = runs[2, 1, 0]  # a tie
    calls = list[int]()

    @takes_runs
    def counted(logits: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        return metric(logits)

    expected = torch.stack([measure_rows(metric, x, slice(None), 5) for x in runs])
    assert torch.equal(measure_runs(counted, runs), expected) and calls == [6]
    assert torch.equal(measure_runs(metric, runs), expected)
    monkeypatch.setattr(batching, "MOST_LOGITS", 2 * runs[0].numel())
    assert torch.equal(measure_runs(counted, runs), expected) and calls == [6, 2, 2, 2]


def test_a_metric_of_ones_own_is_called_for_each_run() -> None:
    seen = list[tuple[int, ...]]()

    class Doubled(Logit):
        def __call__(self, logits: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(logits.shape))
            return 2 * super().__call__(logits)

    for metric in (Doubled(1), lambda logits: Doubled(1)(logits)):
        seen.clear()
        assert torch.equal(measure_runs(metric, RUNS), 2 * RUNS[:, :, 1]) and seen == [(5, 4)] * 6


def test_a_metric_that_wraps_a_marked_one_is_called_for_each_run() -> None:
    """It may look at the images of a run together, and `functools.wraps` gives it the marks of the other."""

    class Centred(Logit):
        @wraps(Logit.__call__)
        def __call__(self, logits: torch.Tensor) -> torch.Tensor:
            values = super().__call__(logits)
            return values - values.mean()

    expected = RUNS[:, :, 1] - RUNS[:, :, 1].mean(1, keepdim=True)
    assert torch.equal(measure_runs(Centred(1), RUNS), expected)


def test_what_is_wrong_in_many_runs_is_said_as_in_one() -> None:
    def failing(logits: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("of the user")

    with pytest.raises(ZeroDivisionError, match="of the user"):
        measure_runs(failing, RUNS)
    with pytest.raises(PrismaError, match=r"one number per image, \[5\]; found \[\]"):
        measure_runs(lambda logits: logits.mean(), RUNS)
    bad = RUNS.clone()
    bad[3, 2, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="expected finite logits; found nan in image 2"):
        measure_runs(Logit(1), bad)
    with pytest.raises(NotFiniteError, match="a metric that is finite; found inf in image 4"):
        measure_runs(lambda logits: torch.arange(5) / (torch.arange(5) < 4), RUNS)
