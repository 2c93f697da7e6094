"""Own data: a pair of tensors, a torch data set, rows of `datasets`; each becomes the same task."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from prisma.data import add
from prisma.data.own import task_of
from prisma.data.transform import Transform
from prisma.errors import PrismaError

IMAGES = torch.randint(256, (40, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4


class Photographs(Dataset[Any]):
    """Rows (PIL picture, label), one of which fails."""

    classes = ("a", "b", "c", "d")  # as torchvision's have

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, i: int) -> Any:
        if i == 5:
            raise OSError("image file is truncated")
        return Image.fromarray(IMAGES[i].permute(1, 2, 0).numpy()), int(LABELS[i])


def test_a_pair_of_tensors() -> None:
    data = task_of("mine", (IMAGES, LABELS), labels=["a", "b", "c", "d"])
    assert (data.name, data.labels) == ("mine", ("a", "b", "c", "d"))
    train, test = data.splits["train"], data.splits["test"]
    assert test.labels.bincount().tolist() == [1] * 4 and train.labels.bincount().tolist() == [9] * 4
    rows = {row.numpy().tobytes() for row in torch.cat([train.images, test.images])}
    assert rows == {row.numpy().tobytes() for row in IMAGES}
    assert data.sha256 == task_of("other", (IMAGES, LABELS)).sha256 != task_of("x", (IMAGES.flip(0), LABELS)).sha256
    assert data.transform == Transform(size=(6, 6), mean=(0.5,) * 3, std=(0.5,) * 3)
    floats = task_of("mine", (IMAGES.float() / 255, LABELS.int()))
    assert floats.sha256 == data.sha256 and floats.labels == ("0", "1", "2", "3")


def test_a_given_test_split_and_grey_images() -> None:
    grey = IMAGES[:, 0].double() / 255
    data = task_of("mine", (grey[:30], LABELS[:30]), (grey[30:], LABELS[30:]))
    assert data.splits["train"].images.shape == (30, 1, 6, 6) and len(data.splits["test"].labels) == 10
    assert torch.equal(data.splits["test"].labels, LABELS[30:])
    x, _ = data.inputs("test")
    torch.testing.assert_close(x[:, 0], grey[30:].float())


def test_rows_of_every_kind_are_the_same_task(tmp_path: Path) -> None:
    import datasets

    expected = task_of("mine", (IMAGES, LABELS))
    assert task_of("mine", TensorDataset(IMAGES, LABELS)).sha256 == expected.sha256
    arrays = [image.permute(1, 2, 0).numpy() for image in IMAGES]
    files = [tmp_path / f"{i}.png" for i in range(40)]
    for file, array in zip(files, arrays, strict=True):
        Image.fromarray(array).save(file)
    for rows in (arrays, files, [str(file) for file in files], [image.float() / 255 for image in IMAGES]):
        pairs = [(row, np.int64(label)) for row, label in zip(rows, LABELS.tolist(), strict=True)]
        assert task_of("mine", pairs).sha256 == expected.sha256
    kinds = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["p", "q", "r", "s"])})
    hub = datasets.Dataset.from_dict({"img": [str(file) for file in files], "label": LABELS.tolist()}, features=kinds)
    for form in (hub, hub.cast_column("img", datasets.Image(decode=False))):
        data = task_of("mine", form)
        assert data.sha256 == expected.sha256 and data.labels == ("p", "q", "r", "s")


def test_pictures_are_resized_as_the_transform_says() -> None:
    transform = Transform(size=(3, 3), mean=(0.0,), std=(1.0,))
    pairs = [(np.full((4 + i % 3, 8), 50 + i, np.uint8), i % 2) for i in range(8)]
    data = task_of("mine", pairs, pairs, transform=transform)
    assert data.splits["train"].images[:, 0, 1, 1].tolist() == list(range(50, 58))
    assert data.transform == transform


def test_a_row_that_fails_is_left_out_or_refused() -> None:
    with pytest.raises(PrismaError, match=r"expected at most 1.0% of 40 pictures to be unreadable; found 1: row 5"):
        task_of("mine", Photographs())
    with pytest.warns(UserWarning, match="1 of 40 pictures cannot be decoded and are left out: row 5"):
        data = task_of("mine", Photographs(), skipped=0.05)
    assert sum(len(split.labels) for split in data.splits.values()) == 39
    assert data.labels == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((IMAGES, LABELS[:5]), r"expected images .* and labels \[n\]; found \[40, 3, 6, 6\] and \[5\]"),
        ((IMAGES[:, :2], LABELS), r"found \[40, 2, 6, 6\]"),
        ((IMAGES[:0], LABELS[:0]), r"found \[0, 3, 6, 6\]"),
        ((IMAGES, LABELS.float()), r"expected labels that are whole numbers from 0; found torch.float32"),
        ((IMAGES, LABELS - 1), r"found torch.int64 from -1"),
        ((IMAGES.float(), LABELS), r"expected images of floats in \[0, 1\], bytes or bool; found torch.float32 from 0"),
        ((IMAGES / 255 * torch.nan, LABELS), r"expected images of floats in \[0, 1\], bytes or bool; found"),
        ("folder", r"expected a pair of tensors .*; found str"),
        ([], "expected a data set with images; found an empty one"),
        (
            [(IMAGES[0], 0), (IMAGES[0, :, :5], 1)],
            r"expected images \[3, 6, 6\] in all rows; found \[3, 5, 6\] in",
        ),
        ([(IMAGES[0], "cat")], r"expected labels that are whole numbers from 0; found 'cat' in row 0"),
        ([IMAGES[0]], r"expected rows \(image, label\)"),
        ([{"x": 1}], r"expected rows \(image, label\)"),
        ([(IMAGES[0], 0)], "expected two images of a class or more"),
    ],
)
def test_what_does_not_belong_together_is_refused(train: Any, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        task_of("mine", train)


def test_names_must_be_enough_and_differ() -> None:
    for names in (["a", "b"], ["a", "a", "b", "c"]):
        with pytest.raises(PrismaError, match="expected different names for 4 classes; found"):
            task_of("mine", (IMAGES, LABELS), labels=names)
    with pytest.raises(PrismaError, match=r"expected test images \[3, 6, 6\], as for training; found \[3, 5, 6\]"):
        task_of("mine", (IMAGES, LABELS), (IMAGES[:, :, :5], LABELS))


def test_what_does_not_fit_is_refused() -> None:
    grey = Transform(size=(6, 6), mean=(0.0,), std=(1.0,))
    for transform in (grey, Transform(size=(3, 3), mean=(0.0,) * 3, std=(1.0,) * 3)):
        sides = [36, len(transform.mean), *transform.size]
        with pytest.raises(PrismaError, match=re.escape(f"to be {sides}, as the transform says; found [36, 3, 6, 6]")):
            task_of("mine", (IMAGES, LABELS), transform=transform)
    with pytest.raises(PrismaError, match=r"number of classes, to be from 0 to 1,000,000; found 9000000000001"):
        task_of("mine", (IMAGES, LABELS + 9_000_000_000_000 - 3))
    with pytest.raises(PrismaError, match=r"bytes or bool; found torch.complex64"):
        task_of("mine", (IMAGES.to(torch.complex64), LABELS))
    with pytest.raises(PrismaError, match=r"whole numbers from 0; found torch.complex64"):
        task_of("mine", (IMAGES, LABELS.to(torch.complex64)))
    with pytest.raises(PrismaError, match=r"found \[40, 3, 0, 6\]"):
        task_of("mine", (torch.zeros(40, 3, 0, 6), LABELS))
    with pytest.raises(PrismaError, match=r"PIL pictures or paths; found None in row 0"):
        task_of("mine", [(None, 0)] * 3)


def test_a_name_has_one_meaning() -> None:
    first = add(task_of("one-meaning", (IMAGES, LABELS)))
    assert add(task_of("one-meaning", (IMAGES, LABELS))) is first
    other = Transform(size=(6, 6), mean=(0.1,) * 3, std=(0.5,) * 3)
    with pytest.raises(PrismaError, match="a new name for another input; found 'one-meaning'"):
        add(task_of("one-meaning", (IMAGES, LABELS), transform=other))
    with pytest.raises(PrismaError, match="a new name for other classes"):
        add(task_of("one-meaning", (IMAGES, LABELS), labels=["a", "b", "c", "d"]))
