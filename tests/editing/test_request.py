"""Which images an edit uses: drawn over all, however they are ordered."""

import pytest
import torch

from prisma.editing import request
from prisma.editing.keys import covariances
from prisma.editing.request import Request
from prisma.errors import PrismaError


def test_images_that_stand_for_all_are_of_all_classes_where_these_are_sorted(digits, monkeypatch) -> None:
    monkeypatch.setattr(request, "OLD", 200)
    order = digits.labels.argsort(stable=True)
    asked = Request.of(digits.loaded.model, digits.images[order], digits.labels[order], 3, 8)
    rows = asked.old()
    assert len(rows) == 200 and len(rows.unique()) == 200
    counts = digits.labels[order][rows].bincount(minlength=10)
    assert counts.min() >= 8  # the first 200 have three classes
    of_old = covariances(digits.loaded.model, digits.images[order][rows], 1)["class"]
    assert torch.equal(asked.covariance(1, "class").matrix, of_old.matrix)
    assert torch.equal(rows, Request.of(*digits.train, 3, 8).old())
    assert not torch.equal(rows, Request.of(*digits.train, 3, 8, seed=1).old())


def test_images_of_the_class_of_the_target_and_of_others(digits) -> None:
    coverage = torch.rand(800, 16)
    asked = Request.of(*digits.train, "three", 8, [*map(str, range(3)), "three", *map(str, range(4, 10))], 5, coverage)
    own = asked.own()
    assert torch.equal(own.images, digits.images[list(own.rows)]) and torch.equal(
        own.coverage, coverage[list(own.rows)]
    )
    assert (digits.labels[list(own.rows)] == 3).all() and len(own.rows) == 5
    eights = digits.images[digits.labels == 8]
    assert all((x == eights).flatten(1).all(1).any() for x in asked.theirs())
    threes = digits.images[digits.labels == 3]
    assert not any((x == threes).flatten(1).all(1).any() for x in asked.others(40))
    copied = Request.of(*digits.train, 3, 8, keys=5).own(copies=2)
    assert copied.images.shape[0] == 15 and torch.equal(copied.images[:5], own.images)
    assert copied.coverage is None and copied.rows == own.rows
    with pytest.raises(PrismaError, match="no copies with coverage"):
        asked.own(copies=1)


def test_bad_requests(digits) -> None:
    model, images, labels = digits.train
    with pytest.raises(PrismaError, match="found 800 images and 799 labels"):
        Request.of(model, images, labels[:-1], 3, 8)
    with pytest.raises(PrismaError, match="800 labels, and coverage of 3"):
        Request.of(model, images, labels, 3, 8, coverage=torch.ones(3, 16))
    with pytest.raises(PrismaError, match="keys of at least 1; found 0"):
        Request.of(model, images, labels, 3, 8, keys=0)
    with pytest.raises(PrismaError, match="images of the class 8; found none among 2"):
        Request.of(model, images[:2], torch.tensor([3, 3]), 3, 8).theirs()
