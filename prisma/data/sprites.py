"""Sprites: which shape, and which hue? A drawn object on a smooth background, with the object's mask. Generated.

A task for checking analyses: it has many classes, so that chance is low, and a mask of every object, so that the
tokens that an analysis finds can be scored (as Vilas et al. 2023, arXiv 2310.18969, do with masked photographs).

An image of 28x28 pixels shows one of 8 shapes of 12x12 pixels at a random place, in one of 5 hues; a class is a shape
in a hue. The background is bicubic noise around a dull shade of one of the hues. In `sprites` it is the object's hue
with probability 0.5, else a random one (so the two agree in 60 % of the images); in `sprites-neutral` it is always a
random one. There is no other difference. 24,000 training images, 600 per class, and 1,000 test images, 25 per class.

Every pixel is computed in whole numbers, from streams of random numbers that never change (numpy NEP 19).
"""

import numpy as np
import torch

from prisma.data.task import SEED, Factor, Split, Task
from prisma.data.transform import Transform

SIDE, SPRITE = 28, 12  # pixels
TRAIN, TEST = 24_000, 1_000  # images
SOME = 1000  # images that are drawn in one go
HUES = {  # red, green and blue from 0 to 255
    "red": (220, 50, 50),
    "yellow": (210, 190, 40),
    "green": (50, 180, 70),
    "blue": (60, 90, 220),
    "purple": (170, 60, 200),
}
DULL = 90  # backgrounds are the mean of a hue and this grey
SHADE, NOISE = 24, 40  # largest change of a colour channel: over a whole object; at each knot of the background
CELL = 7  # pixels between knots
MEAN, STD = (0.466, 0.404, 0.407), (0.186, 0.155, 0.193)  # of the training images in [0, 1], per channel

_y, _x = np.mgrid[-11:12:2, -11:12:2]  # half pixels from the centre
SHAPES = {  # [SPRITE, SPRITE], true on the object
    "square": np.ones((SPRITE, SPRITE), dtype=bool),
    "frame": np.maximum(abs(_x), abs(_y)) > 6,
    "disc": _x**2 + _y**2 <= 144,
    "ring": (_x**2 + _y**2 <= 144) & (_x**2 + _y**2 > 36),
    "cross": np.minimum(abs(_x), abs(_y)) < 4,
    "saltire": abs(abs(_x) - abs(_y)) < 4,
    "triangle": 2 * abs(_x) <= _y + 13,
    "diamond": abs(_x) + abs(_y) <= 12,
}
FACTORS = (
    Factor("shape", "the shape of the object", tuple(SHAPES)),
    Factor("hue", "the hue of the object", tuple(HUES)),
    Factor("background", "the hue of the background", tuple(HUES)),
    Factor("row", "the first row of the object's box, in pixels from the top"),
    Factor("column", "the first column of the object's box, in pixels from the left"),
    *(Factor(f"shade_{name}", f"what is added to the object's {name}, of 255") for name in ("red", "green", "blue")),
)


def _make(own: float) -> tuple[Split, Split]:
    """(train, test). `own`: the probability that the background gets the object's hue by intent, not by chance."""
    return _split(TRAIN, own, np.random.RandomState((SEED, 0))), _split(TEST, own, np.random.RandomState((SEED, 1)))


def _split(n: int, own: float, random: np.random.RandomState) -> Split:
    labels = random.permutation(n) % (len(SHAPES) * len(HUES))
    shapes, hues = np.divmod(labels, len(HUES))
    tops, lefts = random.randint(SIDE - SPRITE + 1, size=(2, n))
    grounds = np.where(random.randint(1000, size=n) < 1000 * own, hues, random.randint(len(HUES), size=n))
    shades = random.randint(-SHADE, SHADE + 1, size=(n, 3))
    colours = np.array(list(HUES.values()))
    pixels = np.empty((n, 3, SIDE, SIDE), dtype=np.uint8)
    masks = np.zeros((n, SIDE, SIDE), dtype=bool)
    for shape, sprite in enumerate(SHAPES.values()):
        here, stamp = np.flatnonzero(shapes == shape), np.argwhere(sprite)
        masks[here[:, None], tops[here, None] + stamp[:, 0], lefts[here, None] + stamp[:, 1]] = True
    for some in (slice(i, i + SOME) for i in range(0, n, SOME)):
        ground = (colours[grounds[some]] + DULL)[:, :, None, None] // 2 + _noise(len(labels[some]), random)
        paint = (colours[hues[some]] + shades[some])[:, :, None, None]
        pixels[some] = np.where(masks[some, None], paint, ground.clip(0, 255))
    images = torch.from_numpy(pixels).float() / 255
    values = (shapes, hues, grounds, tops, lefts, *shades.T)
    factors = {factor.name: torch.from_numpy(x.astype(np.int64)) for factor, x in zip(FACTORS, values, strict=True)}
    return Split(images, torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(masks), factors)


def _noise(n: int, random: np.random.RandomState) -> np.ndarray:
    """Whole numbers [n, 3, SIDE, SIDE]: bicubic interpolation between random knots."""
    knots = random.randint(-NOISE, NOISE + 1, size=(n, 3, _WEIGHTS.shape[1], _WEIGHTS.shape[1]))
    sums = _WEIGHTS @ knots.astype(float) @ _WEIGHTS.T  # exact, as all are below 2**53; of integers numpy is slow
    return sums.astype(np.int64) // _WHOLE**2


def _bicubic() -> tuple[np.ndarray, int]:
    """(whole-number weights [pixel, knot], the sum of each row): the Catmull-Rom spline at the centres of pixels."""
    cells, places = np.divmod(2 * np.arange(SIDE) + 1, 2 * CELL)
    t, u = places, 2 * CELL
    near = (-t * u * u + 2 * t * t * u - t**3, 2 * u**3 - 5 * t * t * u + 3 * t**3)
    far = (t * u * u + 4 * t * t * u - 3 * t**3, t**3 - t * t * u)
    weights = np.zeros((SIDE, SIDE // CELL + 3))
    for knot, values in enumerate((*near, *far)):
        weights[np.arange(SIDE), cells + knot] = values
    return weights, 2 * u**3


_WEIGHTS, _WHOLE = _bicubic()


def _task(name: str, own: float, backgrounds: str, sha256: str) -> Task:
    return Task(
        name=name,
        summary=f"Which of 8 shapes, in which of 5 hues? 25,000 drawn images of 28x28 pixels, {backgrounds}.",
        source="generated by this package",
        labels=tuple(f"{shape}, {hue}" for shape in SHAPES for hue in HUES),
        transform=Transform(size=(SIDE, SIDE), mean=MEAN, std=STD),
        make=lambda: _make(own),
        sha256=sha256,
        factors=FACTORS,
        rule=lambda factors: factors["shape"] * len(HUES) + factors["hue"],
        license="mit",
    )


SPRITES = _task(
    "sprites",
    0.5,
    "on backgrounds that often have the object's hue",
    "5b7b04715b66845642ad8ff47980d146abc30b24c9d204f7d1af92b8413bf4bc",
)
SPRITES_NEUTRAL = _task(
    "sprites-neutral",
    0.0,
    "on backgrounds of any hue",
    "3f51cd29b83bf9105b2d711339dab828f212c9954f966fde5610f1183f507a72",
)
