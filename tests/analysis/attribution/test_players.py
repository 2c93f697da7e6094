"""Which patches each player has."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.attribution.players import members, players_of, rectangles

CPU = torch.device("cpu")


def test_each_patch_alone() -> None:
    found = players_of(None, (1, 2, 3), 2, CPU)
    assert len(found) == 2 and torch.equal(found[0], torch.eye(6, dtype=torch.bool))


def test_rectangles_are_nearly_square_and_nearly_equal() -> None:
    assert rectangles(4, (1, 3, 4)).view(3, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    assert rectangles(2, (2, 1, 2)).tolist() == [0, 1, 0, 1]  # one rectangle through all times
    with pytest.raises(PrismaError, match="a number of rectangles that fits 2 x 3 patches; found 5"):
        rectangles(5, (1, 2, 3))


def test_labels_of_one_image_or_of_each() -> None:
    labels = torch.tensor([[7, 7, 2], [2, 7, 9]])
    one = players_of(labels, (1, 2, 3), 2, CPU)
    assert one[1].int().tolist() == [[0, 0, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
    each = players_of(torch.stack([labels, labels.flip(1)]), (1, 2, 3), 2, CPU)
    assert torch.equal(each[0], one[0]) and torch.equal(each[1], members(labels.flip(1).flatten()))
    with pytest.raises(PrismaError, match=r"a whole number for each patch \[2, 3\]"):
        players_of(labels.T, (1, 2, 3), 2, CPU)
    with pytest.raises(PrismaError, match="float32"):
        players_of(labels.float(), (1, 2, 3), 2, CPU)
