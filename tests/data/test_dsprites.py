"""dSprites: the grid of factors, and pictures against the slow, obvious test of every pixel."""

import hashlib
import math
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from prisma.data import TASKS, task
from prisma.data.dsprites import (
    COUNTS,
    IMAGES,
    ORIENTATIONS,
    SHA256,
    SHAPES,
    TRAIN,
    _Box,
    _labels,
    _make,
    _pictures,
    dsprites,
    dsprites_grid,
)
from prisma.data.task import Task, coverage, data_hash
from prisma.errors import PrismaError

CPU = torch.device("cpu")


def a_small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """One scale and two orientations."""
    for name, value in {"COUNTS": (3, 1, 2, 32, 32), "IMAGES": 6144, "TRAIN": 4608}.items():
        monkeypatch.setattr(sys.modules["prisma.data.dsprites"], name, value)


def images_of(shape: str, scale: float, turn: int) -> Tensor:
    """All positions [x, y, row, column]."""
    return _Box(scale, CPU).draw(shape, turn).unflatten(0, (32, 32)).clone()


def test_the_grid_has_every_combination_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IMAGES == math.prod(COUNTS) == 3 * 6 * 40 * 32 * 32 == 737_280
    a_small_grid(monkeypatch)
    images, factors = dsprites_grid()
    assert (images.dtype, images.shape, factors.dtype, factors.shape) == (
        torch.uint8,
        (6144, 64, 64),
        torch.int64,
        (6144, 5),
    )
    assert images.unique().tolist() == [0, 1]
    for column, count in zip(factors.T, (3, 1, 2, 32, 32), strict=True):
        assert column.unique().tolist() == list(range(count))
    order = torch.stack(list(torch.unravel_index(torch.arange(6144), (3, 1, 2, 32, 32))), 1)
    assert torch.equal(factors, order), "the last factor is fastest"
    for i in (0, 1025, 5000, 6143):
        shape, _, turn, x, y = factors[i].tolist()
        assert torch.equal(images[i].bool(), images_of(SHAPES[shape], 0.5, turn)[x, y])


def test_the_whole_grid_never_changes_and_no_shape_touches_the_border() -> None:
    """The hash of the task, from the grid: images of 8 pixels to a byte, then labels, of each shuffled split."""
    packed, shapes = np.empty((IMAGES, 512), np.uint8), np.unravel_index(np.arange(IMAGES), COUNTS)[0]
    for rows, images in _pictures(None, CPU):
        assert not images[:, [0, -1]].any() and not images[:, :, [0, -1]].any()
        packed[rows] = np.packbits(images.numpy().reshape(len(images), -1), axis=1)
    order, digest = np.random.RandomState(0).permutation(IMAGES), hashlib.sha256()
    for chosen in (order[:TRAIN], order[TRAIN:]):
        digest.update(packed[chosen].tobytes())
        digest.update(shapes[chosen].tobytes())
    assert task("dsprites").sha256 == digest.hexdigest()
    assert (TRAIN, IMAGES - TRAIN) == (552_960, 184_320)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("scale", "turn", "x", "y"), [(0.5, 0, 0, 31), (0.8, 7, 13, 2), (1.0, 33, 31, 16)])
def test_a_pixel_is_white_if_its_centre_is_inside(shape: str, scale: float, turn: int, x: int, y: int) -> None:
    """In float64, where points within a thousandth of the outline are not asked about."""
    found, reach = images_of(shape, scale, turn)[x, y], 15 * scale
    c, s = math.cos(ORIENTATIONS[turn]), math.sin(ORIENTATIONS[turn])
    for row, column in product(range(64), repeat=2):
        right, down = column + 0.5 - (16 + x * 32 / 31), row + 0.5 - (16 + y * 32 / 31)
        a, b = c * right + s * down, c * down - s * right
        if shape == "square":
            inside = reach / 2**0.5 - max(abs(a), abs(b))
        elif shape == "ellipse":
            inside = reach - math.hypot(a, 2 * b)
        else:
            d, b = 0.79 * reach, b - 0.206 * reach
            in_disc = d / 2**0.5 - math.hypot(abs(a) - d / 2, b + d / 2)
            inside = max(d - abs(a) - abs(b), in_disc)
        if abs(inside) > 0.05:
            assert found[row, column].item() == (inside > 0), (row, column)


def test_symmetries() -> None:
    """A turn by 360 degrees is none; places are mirrored; square and ellipse are symmetric, the heart is not."""
    for shape in SHAPES:
        upright = images_of(shape, 0.9, 0)
        assert torch.equal(upright, images_of(shape, 0.9, 39))
        assert torch.equal(upright, upright.flip(0).flip(-1)), "left and right"
        assert torch.equal(upright, upright.flip(1).flip(-2)) == (shape != "heart")
        turned = images_of(shape, 0.9, 13)
        assert torch.equal(turned, turned.flip(0, 1).flip(-1, -2)) == (shape != "heart"), "half a turn"
        assert not torch.equal(turned, upright)


def test_larger_shapes_cover_smaller_ones_and_scale_tells_the_area() -> None:
    for shape in SHAPES:
        smaller, larger = (images_of(shape, scale, 5)[10, 20] for scale in (0.5, 1.0))
        assert (larger >= smaller).all()
        assert larger.sum() / smaller.sum() == pytest.approx(4, rel=0.1)


def test_a_task_for_each_factor() -> None:
    assert {name for name in TASKS if name.startswith("dsprites")} == {
        "dsprites",
        *(f"dsprites-{target}" for target in ("scale", "orientation", "position", "all", "numbers")),
    }
    rows = torch.randint(IMAGES, (100,), generator=torch.Generator().manual_seed(0))
    shape, scale, turn, x, y = (torch.from_numpy(i) for i in np.unravel_index(rows.numpy(), COUNTS))
    expected = {"shape": shape, "scale": scale, "orientation": turn, "position": 32 * x + y}
    factors = dict(zip(("shape", "scale", "orientation", "x", "y"), (shape, scale, turn, x, y), strict=True))
    for target, classes in expected.items():
        data = dsprites(target)
        assert isinstance(data, Task) and data.sha256 == SHA256[target]
        assert torch.equal(_labels(target, factors), classes)
        counts = {"shape": 3, "scale": 6, "orientation": 40, "position": 1024}
        assert len(data.labels) == len(set(data.labels)) == counts[target]
        assert [factor.name for factor in data.factors] == list(factors)
    assert dsprites("position").labels[32 * 3 + 4] == "x 3, y 4"
    with pytest.raises(PrismaError, match="there is no target 'size' of dSprites; the nearest: "):
        dsprites("size")


def test_the_splits_hold_every_image_once_with_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    a_small_grid(monkeypatch)
    train, test = _make("orientation")
    assert (len(train.labels), len(test.labels)) == (4608, 1536)
    images, labels = torch.cat([train.images, test.images])[:, 0], torch.cat([train.labels, test.labels])
    assert labels.bincount().tolist() == [3072, 3072]
    found = sorted(x.tobytes() for x in images[labels == 1].numpy())
    drawn = torch.cat([images_of(shape, 0.5, 1).flatten(0, 1) for shape in SHAPES])
    assert found == sorted(x.tobytes() for x in drawn.numpy())
    assert data_hash(train, test) == data_hash(*_make("orientation"))
    for i in (0, 100, 1000):
        shape, _, turn, x, y = (int(test.factors[factor.name][i]) for factor in dsprites().factors)
        assert torch.equal(test.images[i, 0], images_of(SHAPES[shape], 0.5, turn)[x, y])
    assert test.masks is not None and torch.equal(test.masks, test.images[:, 0])
    covered = coverage(test.masks[:5], 8)
    assert covered.shape == (5, 8, 8)
    assert (covered.sum((1, 2)) * 64).tolist() == test.images[:5].sum((1, 2, 3)).tolist()
    inputs = dsprites().transform.normalise(test.images[:3])
    assert inputs.dtype == torch.float32 and torch.equal(inputs, test.images[:3].float())


def test_all_targets_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels are the shapes, and the answers are the factors; of one target, the answer is the label."""
    a_small_grid(monkeypatch)
    one, every = dsprites("scale"), dsprites("all")
    assert (every.name, every.sha256) == ("dsprites-all", dsprites().sha256)
    train, test = every.make()
    small = Task.of_splits("x", train, test, labels=every.labels, transform=every.transform, summary="", source="")
    asked = replace(small, targets=every.targets, factors=every.factors)
    assert torch.equal(train.labels, train.factors["shape"])
    assert list(asked.answers("test")) == list(asked.answer_names()) == ["shape", "scale", "orientation", "x", "y"]
    assert all(torch.equal(x, test.factors[name]) for name, x in asked.answers("test").items())
    assert asked.answer_names()["shape"] == SHAPES and len(asked.answer_names()["orientation"]) == 40
    assert torch.equal(small.answers("train")["label"], train.labels)
    assert one.answer_names() == {"label": one.labels} and one.targets == ()
    numbers = dsprites("numbers")
    assert numbers.targets == ("scale", "x", "y") and numbers.sha256 == every.sha256
    assert [len(factor.names) for factor in every.factors] == [3, 6, 40, 32, 32]
    assert every.factors[3].names[31] == "31" and every.factors[0].names == SHAPES
