"""Tasks: data that are made once, checked against their hash, and described for the model."""

from dataclasses import replace

import pytest
import torch

from prisma import PrismaError
from prisma.data import TASKS, task
from prisma.data.task import Split, data_hash


def test_tasks_by_name() -> None:
    assert set(TASKS) == {"digits", "induction"}
    assert all(task(name).name == name for name in TASKS)
    with pytest.raises(PrismaError, match="there is no task 'digit'; the nearest: digits"):
        task("digit")


@pytest.mark.parametrize("name", TASKS)
def test_images_labels_and_description_agree(name: str) -> None:
    chosen = task(name)
    for data in chosen.splits.values():
        n, channels, *size = data.images.shape
        assert data.images.dtype == torch.float32
        assert data.labels.dtype == torch.int64
        assert data.labels.shape == (n,)
        assert 0 <= data.images.min() < data.images.max() <= 1
        assert set(data.labels.tolist()) == set(range(len(chosen.labels)))
        assert tuple(size) == chosen.transform.size
        assert channels == len(chosen.transform.mean) == len(chosen.transform.std)
    assert chosen.splits is chosen.splits
    assert chosen.summary.endswith(".")
    assert chosen.source


@pytest.mark.parametrize("name", TASKS)
def test_inputs_are_normalised_images(name: str) -> None:
    chosen = task(name)
    for split, data in chosen.splits.items():
        x, labels = chosen.inputs(split)
        torch.testing.assert_close(x * chosen.transform.std[0] + chosen.transform.mean[0], data.images)
        assert torch.equal(labels, data.labels)


@pytest.mark.parametrize("name", TASKS)
def test_another_pixel_label_or_order_is_another_hash(name: str) -> None:
    chosen = task(name)
    train, test = chosen.splits["train"], chosen.splits["test"]
    assert data_hash(train, test) == chosen.sha256
    brighter = train.images.clone()
    brighter[0, 0, 0, 0] = 1 - brighter[0, 0, 0, 0]
    relabelled = train.labels.clone()
    relabelled[0] = (relabelled[0] + 1) % len(chosen.labels)
    for changed in (
        Split(brighter, train.labels),
        Split(train.images, relabelled),
        Split(train.images.flip(0), train.labels),
    ):
        assert data_hash(changed, test) != chosen.sha256
    assert data_hash(test, train) != chosen.sha256


def test_data_that_differ_are_refused_loudly() -> None:
    digits = task("digits")
    swapped = replace(digits, make=lambda: (digits.splits["test"], digits.splits["train"]))
    with pytest.raises(
        PrismaError, match=rf"the data of task digits should hash to {digits.sha256}, found [0-9a-f]{{64}}"
    ):
        _ = swapped.splits
