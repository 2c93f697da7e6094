"""The circle, read back from its pictures: the two black points, their numbers, and the sum."""

from itertools import combinations
from math import atan2, pi

import pytest
import torch

from prisma.data import task
from prisma.data.circle import BLACK, CIRCLE, PALE, WHITE, circle, points
from prisma.data.task import Split, Task
from prisma.errors import PrismaError


def numbers(data: Split, modulus: int) -> list[tuple[int, int]]:
    """The pair that each picture shows, from the angles of its black points."""
    side = data.images.shape[-1]
    found = []
    for image in (data.images[:, 0] * 255).round().long():
        rows, columns = (image == BLACK).nonzero(as_tuple=True)
        angles = [
            atan2(r + 0.5 - side / 2, c + 0.5 - side / 2) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
        first, second = sorted(round(angle / 2 / pi * modulus) % modulus for angle in angles)
        found.append((first, second))
    return found


@pytest.mark.parametrize("task", [CIRCLE, circle(5), circle(12), circle(31), circle(59)], ids=lambda task: task.name)
def test_labels_are_the_sums_of_what_the_pictures_show(task: Task) -> None:
    modulus = len(task.labels)
    seen = []
    for data in task.splits.values():
        pairs = numbers(data, modulus)
        assert data.labels.tolist() == [(i + j) % modulus for i, j in pairs]
        seen.append(pairs)
    assert abs(len(seen[0]) - len(seen[1])) <= 1
    assert not set(seen[0]) & set(seen[1]), "a pair is in both splits"
    assert sorted(seen[0] + seen[1]) == list(combinations(range(modulus), 2)), "not every pair once"


@pytest.mark.parametrize("modulus", [5, 60, 97, 113, 200])
def test_every_number_has_a_pixel_of_its_own_on_the_circle(modulus: int) -> None:
    side, places = points(modulus)
    assert len(set(places)) == modulus
    assert side == 32 or (side % 16 == 0 and side > 32)
    for row, column in places:
        assert 0 <= row < side and 0 <= column < side
        distance = ((row + 0.5 - side / 2) ** 2 + (column + 0.5 - side / 2) ** 2) ** 0.5
        assert abs(distance - (side - 1) / 2) <= 1


def test_sixty_numbers_stand_where_vit_prisma_has_them() -> None:
    assert CIRCLE.splits["train"].images.shape == CIRCLE.splits["test"].images.shape == (885, 1, 32, 32)
    assert points(60)[1][0] == (16, 31) and points(60)[1][15] == (31, 16)
    for data in CIRCLE.splits.values():
        values = (data.images * 255).round().long()
        assert set(values.unique().tolist()) == {BLACK, PALE, WHITE}
        assert ((values == PALE).sum((1, 2, 3)) == 58).all() and ((values == BLACK).sum((1, 2, 3)) == 2).all()


def test_the_test_pairs_are_of_all_classes() -> None:
    for data in CIRCLE.splits.values():
        assert torch.equal(data.labels.unique(), torch.arange(60))
        assert data.labels.bincount().min() >= 5


def test_any_modulus_by_name() -> None:
    assert task("circle") is CIRCLE
    assert task("circle-97") is circle(97)
    assert (circle(97).name, len(circle(97).labels), circle(97).transform.size) == ("circle-97", 97, (48, 48))
    assert circle(60).sha256 == CIRCLE.sha256 != circle(59).sha256


@pytest.mark.parametrize("modulus", [4, 201, -1, 7.0, True, "60"])
def test_a_modulus_that_cannot_be_is_a_sentence(modulus: int) -> None:
    with pytest.raises(PrismaError, match="expected the modulus of a circle to be from 5 to 200; found"):
        circle(modulus)


@pytest.mark.parametrize("name", ["circle-4", "circle-999"])
def test_a_modulus_that_cannot_be_by_name(name: str) -> None:
    with pytest.raises(PrismaError, match="expected the modulus of a circle to be from 5 to 200; found"):
        task(name)


@pytest.mark.parametrize("task", [CIRCLE, circle(5)], ids=lambda task: task.name)
def test_factors_are_what_the_pictures_show(task: Task) -> None:
    for data in task.splits.values():
        shown = list(zip(data.factors["first"].tolist(), data.factors["second"].tolist(), strict=True))
        assert shown == numbers(data, len(task.labels))
    assert [factor.name for factor in task.factors] == list(data.factors)
