"""The images of a task on a device: the first ones of each split are those to evaluate."""

import torch

from prisma.data import task
from prisma.train.data_on import data_on


def test_all_are_trained_on_and_the_first_are_evaluated() -> None:
    images, inputs = data_on("digits", "cpu", 7)
    data = task("digits")
    assert torch.equal(images.images, data.splits["train"].images)
    for split, (x, y) in inputs.items():
        expected = data.inputs(split)
        assert torch.equal(x, expected[0][:7]) and torch.equal(y, expected[1][:7])
    assert data_on("digits", "cpu", 7)[0] is images, "runs of one task share them"
