"""Images and pairs: drawn by a seed, answered rightly, of two classes, and as alike as the task allows."""

import pytest
import torch

from prisma.data import task
from prisma.loaded import load
from prisma.mechanisms.given import DoesNotApplyError, Given
from prisma.mechanisms.sentences import sentence
from prisma.train.objectives import CLASSIFICATION, OBJECTIVES
from tests.planted_mouse import given


def test_images_are_drawn_by_the_seed_in_the_order_of_the_split() -> None:
    some = given(limit=10)
    assert some.rows.tolist() == sorted(some.rows.tolist()) and len(set(some.rows.tolist())) == 10
    assert some.rows.tolist() != given(limit=10, seed=1).rows.tolist()
    assert torch.equal(some.images[3].float(), some.task.splits["test"].images[some.rows[3]])
    assert some.wanted.tolist() == some.task.splits["test"].labels[some.rows].tolist()


def test_pairs_are_of_two_classes_that_are_answered_rightly() -> None:
    some = given(pairs=16)
    pairs = some.test_pairs
    assert len(pairs) == 16 and pairs.differing is None and (pairs.right, pairs.tried) == (128, 128)
    for images, labels in ((pairs.clean, pairs.metric.correct), (pairs.corrupt, pairs.metric.wrong)):
        assert some.answers(images).argmax(-1).tolist() == list(labels)  # type: ignore[arg-type]
    assert all(a != b for a, b in zip(pairs.metric.correct, pairs.metric.wrong, strict=True))  # type: ignore[arg-type]


def test_with_factors_no_other_image_of_the_pool_is_closer() -> None:
    data, mouse = task("circle"), load("mice/circle")
    some = Given(mouse.model, data, CLASSIFICATION, data.transform, 8, 12)
    pairs, split = some.test_pairs, data.splits["test"]
    pool = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[: 8 * 12]
    numbers = torch.stack([split.factors["first"], split.factors["second"]], 1)
    least = []
    for image in pool[:12].tolist():
        others = [j for j in pool.tolist() if split.labels[j] != split.labels[image]]
        least.append(min(int((numbers[j] != numbers[image]).sum()) for j in others))
    assert pairs.differing == pytest.approx(sum(least) / 12, abs=5e-3)


def test_a_mouse_that_is_rarely_right_gives_no_pairs() -> None:
    some = given()
    for parameter in some.model.parameters():
        parameter.data.zero_()
    with pytest.raises(DoesNotApplyError) as why:
        _ = some.test_pairs
    assert why.value.finding.says == "no_pairs_right"


def test_a_mouse_that_gives_one_class_alone_has_no_pairs_of_two() -> None:
    some = given()
    for parameter in some.model.parameters():
        parameter.data.zero_()
    some.model.readout.head.bias.data[2] = 1  # all images of class 2 are answered rightly, and no others
    with pytest.raises(DoesNotApplyError) as why:
        _ = some.test_pairs
    finding = why.value.finding
    rows = some._drawn(some.task.splits["test"])[: 8 * some.n_pairs]
    labels = some.task.splits["test"].labels[rows]
    assert finding.says == "no_pairs_of_two" and finding.numbers == (int((labels == 2).sum()), len(labels))
    assert sentence(finding, "accuracy").endswith(
        f"of {len(labels)} images {int(finding.numbers[0])} are, all of one class."
    )


def test_objectives_without_a_class_or_a_measure_give_none() -> None:
    some = given()
    masked = OBJECTIVES["masked"].__new__(OBJECTIVES["masked"])
    other = Given(some.model, some.task, masked, some.transform)
    with pytest.raises(DoesNotApplyError) as why:
        _ = other.measure
    assert why.value.finding.says == "no_measure" and why.value.finding.names == ("masked",)
    with pytest.raises(DoesNotApplyError) as why:
        _ = other.test_pairs
    assert why.value.finding.says == "no_pairs_of_classes"
