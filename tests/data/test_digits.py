"""The digits: every image of scikit-learn's set, once, in a stratified split."""

import torch
from sklearn.datasets import load_digits

from prisma.data.digits import DIGITS


def test_sizes() -> None:
    train, test = DIGITS.splits["train"], DIGITS.splits["test"]
    assert (len(train.images), len(test.images)) == (1437, 360)
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 8, 8)


def test_the_split_is_stratified() -> None:
    counts = {split: data.labels.bincount() for split, data in DIGITS.splits.items()}
    whole = counts["train"] + counts["test"]
    assert (counts["test"] - whole * 360 / 1797).abs().max() < 1


def test_every_image_is_there_once_with_its_label() -> None:
    pixels, labels = load_digits(return_X_y=True)
    expected = sorted(
        (tuple(image), label) for image, label in zip(pixels.astype(int).tolist(), labels.tolist(), strict=True)
    )
    found = [
        (tuple((image * 16).int().flatten().tolist()), label)
        for data in DIGITS.splits.values()
        for image, label in zip(data.images, data.labels.tolist(), strict=True)
    ]
    assert sorted(found) == expected
    parts = [{image for image, _ in found[:1437]}, {image for image, _ in found[1437:]}]
    assert not parts[0] & parts[1], "an image is in both splits"


def test_pixels_are_sixteenths() -> None:
    images = DIGITS.splits["train"].images * 16
    assert torch.equal(images, images.round())


def test_normalisation_is_that_of_the_training_images() -> None:
    images = DIGITS.splits["train"].images
    assert DIGITS.transform.mean == (round(images.mean().item(), 3),)
    assert DIGITS.transform.std == (round(images.std().item(), 3),)
