"""Tasks: data that are made once, checked against their hash, and described for the model."""

from dataclasses import replace

import pytest
import torch

from prisma import PrismaError
from prisma.data import TASKS, task
from prisma.data.task import Split, coverage, data_hash

SMALL = [name for name in TASKS if not name.startswith("dsprites")]  # the others: test_dsprites.py


def test_tasks_by_name() -> None:
    assert set(SMALL) == {"digits", "induction", "circle", "sprites", "sprites-neutral"}
    assert set(TASKS) - set(SMALL) == {
        f"dsprites{end}" for end in ("", "-scale", "-orientation", "-position", "-all", "-numbers")
    }
    assert all(task(name).name == name for name in TASKS)
    with pytest.raises(PrismaError, match="there is no task 'digit'; the nearest: digits"):
        task("digit")


@pytest.mark.parametrize("name", SMALL)
def test_images_labels_and_description_agree(name: str) -> None:
    chosen = task(name)
    for data in chosen.splits.values():
        n, channels, *size = data.images.shape
        assert data.images.dtype == torch.float32
        assert data.labels.dtype == torch.int64
        assert data.labels.shape == (n,)
        assert 0 <= data.images.min() < data.images.max() <= 1
        assert set(data.labels.tolist()) == set(range(len(chosen.labels)))
        assert data.masks is None or (data.masks.shape, data.masks.dtype) == ((n, *size), torch.bool)
        assert tuple(size) == chosen.transform.size
        assert channels == len(chosen.transform.mean) == len(chosen.transform.std)
    assert chosen.splits is chosen.splits
    assert chosen.summary.endswith(".")
    assert chosen.source


@pytest.mark.parametrize("name", SMALL)
def test_inputs_are_normalised_images(name: str) -> None:
    chosen = task(name)
    for split, data in chosen.splits.items():
        x, labels = chosen.inputs(split)
        for channel, (mean, std) in enumerate(zip(chosen.transform.mean, chosen.transform.std, strict=True)):
            torch.testing.assert_close(x[:, channel] * std + mean, data.images[:, channel])
        assert torch.equal(labels, data.labels)
        few, their_labels = chosen.inputs(split, 5)
        assert torch.equal(few, x[:5]) and torch.equal(their_labels, labels[:5])


def first(data: Split, n: int) -> Split:
    return Split(data.images[:n], data.labels[:n], None if data.masks is None else data.masks[:n])


@pytest.mark.parametrize("name", SMALL)
def test_another_pixel_label_or_order_is_another_hash(name: str) -> None:
    chosen = task(name)
    train, test = (first(data, 50) for data in chosen.splits.values())
    expected = data_hash(train, test)
    brighter = train.images.clone()
    brighter[0, 0, 0, 0] = 1 - brighter[0, 0, 0, 0]
    relabelled = train.labels.clone()
    relabelled[0] = (relabelled[0] + 1) % len(chosen.labels)
    for changed in (
        replace(train, images=brighter),
        replace(train, labels=relabelled),
        replace(train, images=train.images.flip(0)),
        replace(train, masks=None if train.masks is not None else train.images[:, 0] > 0.5),
    ):
        assert data_hash(changed, test) != expected
    assert data_hash(test, train) != expected


def test_data_that_differ_are_refused_loudly() -> None:
    digits = task("digits")
    swapped = replace(digits, make=lambda: (digits.splits["test"], digits.splits["train"]))
    assert data_hash(digits.splits["train"], digits.splits["test"]) == digits.sha256
    with pytest.raises(
        PrismaError,
        match=rf"expected data of hash {digits.sha256} for the task digits; found [0-9a-f]{{64}}",
    ):
        _ = swapped.splits


@pytest.mark.parametrize("patch", [4, 7, (2, 14), 28, 1])
def test_coverage_is_the_share_of_each_patch(patch: int | tuple[int, int]) -> None:
    masks = task("sprites").splits["test"].masks
    assert masks is not None
    p, q = (patch, patch) if isinstance(patch, int) else patch
    covered = coverage(masks, patch)
    assert covered.shape == (len(masks), 28 // p, 28 // q)
    assert covered.min() >= 0 and covered.max() <= 1 and covered.dtype == torch.float32
    for i, row, column in ((0, 0, 0), (5, 28 // p - 1, 0), (17, 28 // p // 2, 28 // q // 2)):
        cut = masks[i, row * p : (row + 1) * p, column * q : (column + 1) * q]
        assert covered[i, row, column].item() == pytest.approx(cut.sum().item() / (p * q))
    torch.testing.assert_close(covered.sum((1, 2)) * p * q, masks.sum((1, 2)).float())


@pytest.mark.parametrize("shape", [(2, 28, 30), (2, 30, 28), (28, 28), (2, 1, 28, 28)])
def test_coverage_is_of_whole_patches(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrismaError, match=r"expected masks .* of whole patches of 4x4; found"):
        coverage(torch.ones(shape, dtype=torch.bool), 4)


@pytest.mark.parametrize("name", ["digits", "induction", "circle", "sprites", "sprites-neutral", "circle-7"])
def test_every_task_says_its_licence_and_its_factors(name: str) -> None:
    data = task(name)
    assert data.license == ("cc-by-4.0" if name == "digits" else "mit")
    assert len({factor.name for factor in data.factors} - {"image", "label", "mask"}) == len(data.factors)
    assert bool(data.factors) == (name != "digits")
    assert all(factor.words and len(set(factor.values)) == len(factor.values) for factor in data.factors)
