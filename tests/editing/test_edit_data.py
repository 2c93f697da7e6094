from pathlib import Path

import numpy as np
import pytest
import torch

import prisma
from prisma.data import task
from prisma.editing.edit_data import edit_data
from prisma.errors import PrismaError


def test_a_task_gives_its_splits(digits) -> None:
    found, again = (edit_data("digits", digits.loaded, 30, seed=seed) for seed in (0, 1))
    images, labels = task("digits").inputs("train")
    places = [int((x == images).flatten(1).all(1).nonzero()[0]) for x in found.images]
    assert torch.equal(found.labels, labels[places]) and places != sorted(places) and max(places) > 800
    assert not torch.equal(found.images, again.images)
    assert torch.equal(found.test_labels.bincount(), digits.test_labels.bincount())
    with pytest.raises(PrismaError, match="expected images of"):
        edit_data("sprites", digits.loaded)


def test_of_a_folder_every_second_picture_of_a_class_is_held_out(digits, tmp_path: Path) -> None:
    from PIL import Image

    for name in map(str, range(10)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((8, 8), 20 * int(name) + i, np.uint8)).save(tmp_path / name / f"{i}.png")
    found = edit_data(tmp_path, prisma.load("mice/digits"))
    assert sorted(found.labels.tolist()) == [c for c in range(10) for _ in range(2)]
    assert sorted(found.test_labels.tolist()) == list(range(10)) != found.test_labels.tolist()
    assert len(edit_data(tmp_path, digits.loaded, 8).labels.unique()) > 5  # not the first classes alone
    (tmp_path / "x").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "x" / "0.png")
    with pytest.raises(PrismaError, match="subfolders are the classes"):
        edit_data(tmp_path, digits.loaded)
