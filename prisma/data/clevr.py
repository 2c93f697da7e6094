"""A simplified CLEVR: coloured shapes, questions of number and relation, and a mask of every object. Generated.

After CLEVR (Johnson et al. 2017, arXiv 1612.06890), in two dimensions. An image of 48x48 pixels shows 4 to 8 objects,
each in a cell of its own of a grid of 3x3 cells: a square, a disc or a triangle, small (7 pixels) or large (11), at a
random place of the cell, in one of six colours. One object is red and one is blue; they differ in row and column. Each
image answers three questions, and all answers to one are as likely, whatever the others are:

- `clevr`: how many objects are there?
- `clevr-relation`: where is the red object, seen from the blue one?
- `clevr-same`: how many other objects have the shape of the red one? This needs its shape, then the others'.

24,000 training images and 2,000 test images. The first object is the red one and the second the blue one.

Every pixel is computed in whole numbers, from streams of random numbers that never change (numpy NEP 19).
"""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import torch

from prisma.data.task import SEED, Factor, Split, Task
from prisma.data.transform import Transform

CELL, CELLS = 16, 3  # pixels of a cell, cells along each axis
SIDE = CELL * CELLS
TRAIN, TEST = 24_000, 2_000  # images
MOST, LEAST = 8, 4  # objects
COLOURS = {  # red, green and blue from 0 to 255
    "red": (220, 40, 40),
    "blue": (50, 80, 220),
    "green": (40, 170, 60),
    "yellow": (220, 200, 50),
    "purple": (150, 60, 190),
    "cyan": (60, 190, 200),
}
GREY, SHADE = 96, 24  # the ground; the largest change of a colour channel over a whole object
SIZES = {"small": 7, "large": 11}  # pixels
MEAN, STD = (0.395, 0.395, 0.397), (0.133, 0.115, 0.135)  # of the training images in [0, 1], per channel


def _stamp(shape: str, side: int) -> np.ndarray:
    """Where a shape is in its box: rows of (row, column)."""
    y, x = np.mgrid[1 - side : side : 2, 1 - side : side : 2]  # half pixels from the centre
    inside = {"square": x < side, "disc": x * x + y * y <= side * side, "triangle": 2 * abs(x) <= y + side}
    return np.argwhere(inside[shape])


SHAPES = ("square", "disc", "triangle")
STAMPS = {(s, z): _stamp(shape, side) for s, shape in enumerate(SHAPES) for z, side in enumerate(SIZES.values())}
ANSWERS = {
    "count": tuple(str(n) for n in range(LEAST, MOST + 1)),
    "relation": ("left above", "right above", "left below", "right below"),
    "same": ("0", "1", "2", "3"),
}
QUESTIONS = {
    "count": "How many objects are there?",
    "relation": "Where is the red object, seen from the blue one?",
    "same": "How many other objects have the shape of the red one?",
}
FACTORS = (
    Factor("count", "how many objects there are", ANSWERS["count"]),
    Factor("relation", "where the red object is, seen from the blue one", ANSWERS["relation"]),
    Factor("same", "how many other objects have the shape of the red one", ANSWERS["same"]),
    Factor("red_shape", "the shape of the red object", SHAPES),
    Factor("blue_shape", "the shape of the blue object", SHAPES),
)


def _make(target: str) -> tuple[Split, Split]:
    train, test = (replace(split, labels=split.factors[target]) for split in _drawn())
    return train, test


@cache
def _drawn() -> tuple[Split, Split]:
    """(train, test), the same images for all questions, labelled by the first."""
    train, test = (_split(n, np.random.RandomState((SEED, i))) for i, n in enumerate((TRAIN, TEST)))
    return train, test


def _split(n: int, random: np.random.RandomState) -> Split:
    count, same = random.randint(LEAST, MOST + 1, n), random.randint(len(ANSWERS["same"]), size=n)
    cells, relation = _cells(n, random)
    shapes, sizes = _shapes(same, count, random), random.randint(len(SIZES), size=(n, MOST))
    colours = np.concatenate([np.tile([0, 1], (n, 1)), random.randint(2, len(COLOURS), (n, MOST - 2))], 1)
    room = CELL - np.array(list(SIZES.values()))[sizes]
    corners = CELL * cells + random.randint(1 << 20, size=(2, n, MOST)) % (room + 1)  # rows, columns
    there = np.arange(MOST) < count[:, None]
    objects = np.zeros((n, SIDE, SIDE), dtype=np.uint8)
    for i, ((shape, size), stamp) in product(range(MOST), STAMPS.items()):
        here = np.flatnonzero(there[:, i] & (shapes[:, i] == shape) & (sizes[:, i] == size))
        rows, columns = corners[:, here, i, None] + stamp.T[:, None]
        objects[here[:, None], rows, columns] = i + 1
    numbers = {"same": same, "count": count - LEAST, "relation": relation}
    numbers |= {"red_shape": shapes[:, 0], "blue_shape": shapes[:, 1]}
    factors = {name: torch.from_numpy(x.astype(np.int64)) for name, x in numbers.items()}
    kinds = np.where(there, colours * len(SHAPES) + shapes, -1)
    return Split(
        torch.from_numpy(_painted(objects, colours, random)),
        factors["count"],
        torch.from_numpy(objects > 0),
        factors,
        objects=torch.from_numpy(objects),
        kinds=torch.from_numpy(kinds.astype(np.int64)),
    )


def _cells(n: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """(cells [2, image, object], a row and a column; relation [image]). Red and blue differ in both."""
    red = random.randint(CELLS, size=(2, n))
    blue = (red + random.randint(1, CELLS, (2, n))) % CELLS
    order = random.uniform(size=(n, CELLS**2))
    order[np.arange(n), red[0] * CELLS + red[1]], order[np.arange(n), blue[0] * CELLS + blue[1]] = -2, -1
    cells = np.stack(np.divmod(order.argsort(1)[:, :MOST], CELLS))
    below, right = red > blue
    return cells, 2 * below + right


def _shapes(same: np.ndarray, count: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """[image, object]: the first at random; `same` of the others that are there like it, the rest not."""
    n = len(same)
    first = random.randint(len(SHAPES), size=(n, 1))
    lots = np.where(np.arange(1, MOST) < count[:, None], random.uniform(size=(n, MOST - 1)), 2)
    like = lots.argsort(1).argsort(1) < same[:, None]
    others = np.where(like, first, (first + random.randint(1, len(SHAPES), (n, MOST - 1))) % len(SHAPES))
    return np.concatenate([first, others], 1)


def _painted(objects: np.ndarray, colours: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Images uint8 [image, 3, row, column]: every object in its colour and a shade of its own."""
    n = len(objects)
    shades = np.array(list(COLOURS.values()))[colours] + random.randint(-SHADE, SHADE + 1, (n, MOST, 3))
    palette = np.concatenate([np.full((n, 1, 3), GREY), shades.clip(0, 255)], 1).astype(np.uint8)
    places = objects + (MOST + 1) * np.arange(n, dtype=np.int32)[:, None, None]
    return np.stack([channel.take(places) for channel in palette.reshape(-1, 3).T.copy()], 1)


def _task(target: str, sha256: str) -> Task:
    return Task(
        name="clevr" if target == "count" else f"clevr-{target}",
        summary=f"{QUESTIONS[target]} 26,000 drawn images of 48x48 pixels with 4 to 8 coloured shapes.",
        source="generated by this package, after CLEVR (Johnson et al. 2017)",
        labels=ANSWERS[target],
        transform=Transform(size=(SIDE, SIDE), mean=MEAN, std=STD),
        make=lambda: _make(target),
        sha256=sha256,
        factors=FACTORS,
        kinds=tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
        license="mit",
    )


SHA256 = {
    "count": "ea625ab7ee9c89e1d94cc53dde4800e95b3591d6526706dadb63b411df5d8319",
    "relation": "243f4860f410f11cafbb64f7c9440a87992ee5218687016e7e082b1face2cace",
    "same": "200845caf3d5060327c701548f9e64ba65ccadbb63f8862255c08dd9314efe55",
}
CLEVR = tuple(_task(target, sha256) for target, sha256 in SHA256.items())
