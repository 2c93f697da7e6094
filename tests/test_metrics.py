"""Metrics: one number per image."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prisma import LogitDiff, PrismaError, Probability
from prisma.errors import NotFiniteError
from prisma.metrics import (
    KL,
    NAMED,
    Logit,
    Rank,
    Similarity,
    above_and_tied,
    logit_diff,
    measure,
    named_metric,
    top_share,
)

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])


def test_logit_difference() -> None:
    assert LogitDiff(2, 0)(LOGITS).tolist() == [3.0, 0.0]


def test_probability() -> None:
    e = LOGITS.exp()
    torch.testing.assert_close(Probability(1)(LOGITS), e[:, 1] / e.sum(1))


def test_metrics_are_values() -> None:
    assert LogitDiff(2, 0) == LogitDiff(2, 0)
    assert len({LogitDiff(2, 0), LogitDiff(2, 0), LogitDiff(0, 2), Probability(1)}) == 3


def test_a_class_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(PrismaError, match="expected a class from 0 to 2; found 3"):
        LogitDiff(0, 3)(LOGITS)
    with pytest.raises(PrismaError, match="found -1"):
        Probability(-1)(LOGITS)


def test_each_image_may_have_its_own_class() -> None:
    assert LogitDiff((2, 0), 1)(LOGITS).tolist() == [2.0, 0.0]
    assert LogitDiff([2, 0], torch.tensor([0, 1]))(LOGITS).tolist() == [3.0, 0.0]
    assert Logit(torch.tensor([0, 2]))(LOGITS).tolist() == [1.0, 0.0]
    assert LogitDiff([2, 0], 1) == LogitDiff(torch.tensor([2, 0]), 1)
    with pytest.raises(PrismaError, match="or one for each of 2 images"):
        Logit((1, 2, 0))(LOGITS)
    with pytest.raises(PrismaError, match="found 3"):
        Logit((0, 3))(LOGITS)


def test_rank_counts_the_classes_before_and_half_of_those_that_tie() -> None:
    assert [Rank(k)(LOGITS).tolist() for k in range(3)] == [[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]]
    two_first = torch.tensor([[3.0, 3.0, 1.0, 0.0]])
    assert [Rank(k)(two_first).item() for k in range(4)] == [0.5, 0.5, 2.0, 3.0]
    assert [top_share(*above_and_tied(two_first, k)).item() for k in range(4)] == [0.5, 0.5, 0.0, 0.0]


def test_half_precision_is_not_rounded_again() -> None:
    """1,000 classes need 10 bits, of which bfloat16 has 8: the ranks are exact all the same."""
    logits = torch.arange(1000.0)[None].to(torch.bfloat16)
    slow = [(logits > logits[0, k]).sum().item() + ((logits == logits[0, k]).sum().item() - 1) / 2 for k in range(1000)]
    assert [Rank(k)(logits).item() for k in range(1000)] == slow
    for metric in (Logit(3), Probability(3), LogitDiff(3, 999), KL(logits * 0), Similarity(torch.ones(1000))):
        assert metric(logits).dtype == torch.float32
        torch.testing.assert_close(metric(logits), metric(logits.double()).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_and_metrics_that_are_not_finite_are_refused_by_image(value: float) -> None:
    logits = torch.zeros(4, 3)
    logits[2, 1] = value  # a class that the metric does not read, and that would hide: nothing is larger than NaN
    with pytest.raises(NotFiniteError, match=f"expected finite logits; found {value} in image 2"):
        measure(Logit(0), logits)
    values = torch.tensor([0.0, 0.0, 0.0, value])
    with pytest.raises(NotFiniteError, match=f"a metric that is finite; found {value} in image 3"):
        measure(lambda logits: values, torch.zeros(4, 3))
    assert measure(lambda logits: values, torch.zeros(4, 3), torch.tensor([2, 0])).tolist() == [0, 0]
    with pytest.raises(NotFiniteError, match="in image 3"):
        measure(lambda logits: values, torch.zeros(4, 3), torch.tensor([1, 3]))


def test_divergence_from_a_reference() -> None:
    reference = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]])
    expected = F.kl_div(LOGITS.log_softmax(-1), reference.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(KL(reference)(LOGITS), expected)
    assert KL(LOGITS)(LOGITS).abs().max() < 1e-6
    torch.testing.assert_close(KL(reference[:1])(LOGITS)[0], expected[0])
    with pytest.raises(PrismaError, match=r"expected reference logits \[2, 3\]; found \[3\]"):
        KL(reference[0])(LOGITS)


def test_similarity_is_a_cosine() -> None:
    direction = torch.tensor([0.0, 0.0, 2.0])
    torch.testing.assert_close(Similarity(direction)(LOGITS), torch.tensor([4 / 21**0.5, 0.0]))
    assert Similarity(LOGITS)(LOGITS)[0].item() == pytest.approx(1)
    with pytest.raises(PrismaError, match="expected a direction"):
        Similarity(direction[:2])(LOGITS)


def test_a_metric_is_one_finite_number_for_each_image() -> None:
    assert measure(Logit(0), LOGITS).tolist() == [1.0, 0.0]
    with pytest.raises(PrismaError, match=r"expected a metric, such as LogitDiff\(3, 5\) .*; found a int"):
        measure(3, torch.zeros(2, 3))  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match=r"one number per image, \[2\]; found \[2, 3\]"):
        measure(lambda x: x, LOGITS)
    with pytest.raises(PrismaError, match="finite; found inf"):
        measure(lambda x: x[:, 0] / 0, LOGITS + 1)


def test_a_metric_has_a_mean_whatever_its_type() -> None:
    assert measure(lambda x: x.argmax(-1), LOGITS).tolist() == [2.0, 0.0]
    assert measure(lambda x: x.argmax(-1) == 2, LOGITS).mean() == 0.5
    assert measure(Logit(0), LOGITS.bfloat16()).dtype == torch.float32
    assert measure(Logit(0), LOGITS.double()).dtype == torch.float64


def test_metrics_by_name_are_about_the_predicted_class_unless_told() -> None:
    predicted = LOGITS.argmax(-1)
    assert set(NAMED) == {"logit", "probability", "logit_diff"}
    assert named_metric("logit", LOGITS) == Logit(predicted)
    assert named_metric("probability", LOGITS, 1) == Probability([1, 1])
    runner_up = LOGITS.argsort(descending=True)[:, 1]
    assert named_metric("logit_diff", LOGITS) == LogitDiff(predicted, runner_up) == logit_diff(LOGITS, predicted)
    assert named_metric("logit_diff", LOGITS, runner_up) == LogitDiff(runner_up, predicted)


def test_a_metric_by_name_that_cannot_be_is_refused() -> None:
    with pytest.raises(PrismaError, match="expected a metric among logit, probability, logit_diff; found 'loss'"):
        named_metric("loss", LOGITS)
    with pytest.raises(PrismaError, match="expected a class from 0 to 2; found 3"):
        named_metric("logit", LOGITS, 3)
    with pytest.raises(PrismaError, match="logit_diff needs a model with at least 2 classes; found 1"):
        named_metric("logit_diff", LOGITS[:, :1])


def test_a_class_is_a_whole_number() -> None:
    wrong: list[Any] = [True, 1.0, [0.5], [True, False], torch.tensor([1.0]), torch.tensor(True), "3", None, [[1]], {1}]
    for target in wrong:
        for make in (Logit, Probability, Rank, lambda x: LogitDiff(0, x), lambda x: LogitDiff(x, 0)):
            with pytest.raises(
                PrismaError, match="expected one class, or one for each image, as whole numbers; found "
            ):
                make(target)
                pytest.fail(f"{target!r} is taken as a class")
    assert Logit(np.int64(3)) == Logit(torch.tensor(3)) == Logit(3)
    assert Logit(torch.tensor([1, 2])) == Logit([1, 2])


def test_a_class_has_no_difference_to_itself() -> None:
    for correct, wrong in ((1, 1), ([1, 1], 1), (1, torch.tensor([1, 1])), ([0, 1, 2], [0, 1, 2])):
        with pytest.raises(PrismaError, match=r"expected two classes that differ; found .* as correct and as wrong"):
            LogitDiff(correct, wrong)
    assert LogitDiff([2, 0], [0, 0])(LOGITS)[1] == 0
    with pytest.raises(PrismaError, match="as many wrong as correct classes; found 3 and 2"):
        LogitDiff([0, 1], [1, 0, 2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_divergence_from_the_run_itself_has_no_slope_in_any_precision(dtype: torch.dtype) -> None:
    logits = (10 * torch.randn(4, 10, generator=torch.Generator().manual_seed(0))).to(dtype)
    leaf = logits.clone().requires_grad_()
    value = KL(logits)(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    assert value.dtype == torch.float32 and value.abs().max() < 1e-6 and slope.abs().max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-200, 200) | st.just(-torch.inf), min_size=4, max_size=4), min_size=2, max_size=2),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_a_class_without_probability_adds_nothing(rows: list[list[float]], dtype: torch.dtype) -> None:
    """Against the sum over the classes that the reference has, in float64: 0 log 0 is 0, also where exp underflows."""
    reference, run = (torch.tensor(row).to(dtype) for row in rows)
    run = run.clamp(min=-200)  # of a run, which is finite
    if not reference.isfinite().any():
        reference = reference.nan_to_num(neginf=0.0)
    p, q = reference.double().softmax(-1), run.double().log_softmax(-1)
    slow = sum(float(a) * (float(a.log()) - float(b)) for a, b in zip(p, q, strict=True) if a > 0)
    logits = run[None].clone().requires_grad_()
    found = KL(reference[None])(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), torch.tensor([slow]).double(), rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    torch.testing.assert_close(slope[0].double(), (q.exp() - p).to(dtype).double(), rtol=1e-2, atol=1e-2)


def test_one_reference_for_all_images_is_written_with_an_axis() -> None:
    with pytest.raises(PrismaError, match=r"found \[3\]: for one reference for all images, use reference\[None\]"):
        KL(LOGITS[0])(LOGITS)
    assert KL(LOGITS[0][None])(LOGITS)[0] == 0


@pytest.mark.parametrize("value", [None, "cat", torch.tensor([[1, 2]]), object()])
def test_what_is_no_logits_and_no_direction_is_one_sentence(value: Any) -> None:
    with pytest.raises(
        PrismaError, match=r"^expected the logits \[batch, class\] of a reference run, as numbers .*found"
    ):
        KL(value)
    with pytest.raises(PrismaError, match=r"^expected a direction \[features\], as numbers .*found"):
        Similarity(value)


def test_arrays_and_lists_are_tensors() -> None:
    logits: Any = [[0.0, 1.0]]
    for form in (logits, np.array(logits, dtype=np.float32)):
        torch.testing.assert_close(
            KL(form)(torch.tensor([[1.0, 0.0]])), KL(torch.tensor(logits))(torch.tensor([[1.0, 0.0]]))
        )
