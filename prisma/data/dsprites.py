"""dSprites: a white square, ellipse or heart on black. Which shape, scale, orientation or position? Drawn, or read.

Following the set of DeepMind (Matthey et al. 2017, https://github.com/deepmind/dsprites-dataset), whose factors, values
and order of images these are: 3 shapes x 6 scales x 40 orientations x 32 x 32 positions = 737,280 images of 64x64
pixels. The pictures are not that set's: they are drawn by a rule of our own. The original is read instead where its
path is given (`prisma.data.dsprites_file`).

The rule. A pixel is white if its centre is inside the shape. All three shapes reach as far from their centre: 15 pixels
times the scale. The square has its corners there, the ellipse the ends of its long axis, twice the short one, and the
heart the tip and the far points of its two discs. Centres lie 32/31 pixels apart, from 16 to 48 pixels. As in the
original, orientations 0 and 39 are a whole turn apart, and their images are the same.

Coordinates are whole numbers of 1/62 pixel and cosines whole numbers of 1/1024, and each operation is rounded by itself
in float32, so every device draws the same bits.
"""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from math import cos, pi, sin
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prisma.data.dsprites_file import read_dsprites
from prisma.data.task import Factor, Split, Task, data_hash
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest

SIDE = 64  # pixels
SHAPES = ("square", "ellipse", "heart")
SCALES = tuple(tenths / 10 for tenths in range(5, 11))
ORIENTATIONS = tuple(2 * pi * k / 39 for k in range(40))  # radians, clockwise
POSITIONS = 32  # along each axis
COUNTS = (len(SHAPES), len(SCALES), len(ORIENTATIONS), POSITIONS, POSITIONS)  # x, to the right, before y, downwards
IMAGES = len(SHAPES) * len(SCALES) * len(ORIENTATIONS) * POSITIONS**2
TRAIN = IMAGES * 3 // 4

_PIXEL, _STEP, _FIRST = 62, 64, 16 * 62  # units: of a pixel, between two centres, of the first centre
_REACH = 15 * _PIXEL  # units, at scale 1
_TURN = 1024  # a cosine of 1
_HALF_SIDE, _DIAMOND, _LOWER = (
    2**-0.5,
    0.79,
    0.206,
)  # of the square; of the heart's diamond, and its centre: of the reach


def dsprites_grid(path: str | Path | None = None, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """All images and their factors: (uint8 [737280, 64, 64] of 0 and 1, int64 [737280, 5]), on the device.

    The columns of the factors are shape (0 square, 1 ellipse, 2 heart), scale (0-5), orientation (0-39), x and y (0-31
    each); the last changes fastest.

    Args:
        path: the original's `.npz` file, which is read instead of drawing.

    Raises:
        PrismaError: there is no such file, or it does not hold the original's images and factors.
    """
    images = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.bool, device=device)
    for rows, some in _pictures(path, torch.device(device)):
        images[rows] = some
    counts = [torch.arange(n, device=device) for n in COUNTS]
    return images.view(torch.uint8), torch.cartesian_prod(*counts)


def _pictures(path: str | Path | None, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """The images in their order, some at a time: (which of them, bool [n, 64, 64])."""
    n = POSITIONS**2
    if path is not None:
        for start, pixels in read_dsprites(path, COUNTS, (SIDE, SIDE), n):
            yield slice(start, start + n), torch.from_numpy(pixels).view(torch.bool).to(device)
        return
    boxes = [_Box(scale, device) for scale in SCALES]
    for i, (shape, scale, turn) in enumerate(np.ndindex(COUNTS[:3])):
        yield slice(i * n, (i + 1) * n), boxes[scale].draw(SHAPES[shape], turn)


class _Box:
    """Images of one scale: around each centre, the pixels that a shape can reach."""

    def __init__(self, scale: float, device: torch.device) -> None:
        self.reach = round(_REACH * scale)
        centres = _FIRST + _STEP * torch.arange(POSITIONS)
        first = -((self.reach + _PIXEL // 2 - centres) // _PIXEL)  # the first pixel whose centre is within reach
        pixels = first[:, None] + torch.arange(2 * self.reach // _PIXEL + 1)  # [position, pixel of the box]
        self.offsets = (_PIXEL * pixels + _PIXEL // 2 - centres[:, None]).flatten().float().to(device)
        position = torch.arange(POSITIONS)[:, None]
        x = (position * POSITIONS * SIDE**2 + pixels).flatten()
        y = (position * SIDE**2 + pixels * SIDE).flatten()
        self.places = (x + y[:, None]).flatten().to(device)
        self.images = torch.zeros(POSITIONS**2, SIDE, SIDE, dtype=torch.bool, device=device)

    def draw(self, shape: str, turn: int) -> Tensor:
        """The images of a shape at all positions, x before y; the next call overwrites them."""
        angle = ORIENTATIONS[turn % (len(ORIENTATIONS) - 1)]
        c, s = round(cos(angle) * _TURN) / _TURN, round(sin(angle) * _TURN) / _TURN
        x, y = self.offsets, self.offsets[:, None]
        inside = _inside(shape, c * x + s * y, c * y - s * x, self.reach)
        self.images.view(torch.uint8).view(-1).scatter_(0, self.places, inside.view(torch.uint8).view(-1))
        return self.images


def _inside(shape: str, across: Tensor, down: Tensor, reach: int) -> Tensor:
    """Whether points, in units from the centre and along the axes of the shape, lie in it. Overwrites its input."""
    if shape == "square":
        return torch.maximum(across.abs_(), down.abs_(), out=across) <= _HALF_SIDE * reach
    if shape == "ellipse":
        return across.square_().add_(down.mul_(2).square_()) <= reach**2
    diamond, across, down = _DIAMOND * reach, across.abs_(), down.sub_(_LOWER * reach)
    in_diamond = down.abs().add_(across) <= diamond
    return in_diamond.logical_or_(
        across.sub_(diamond / 2).square_().add_(down.add_(diamond / 2).square_()) <= diamond**2 / 2
    )


FACTORS = (
    Factor("shape", "the shape", SHAPES),
    Factor("scale", "how far the shape reaches, as a share of 15 pixels", tuple(f"{scale:.1f}" for scale in SCALES)),
    Factor(
        "orientation",
        "how the shape is turned, clockwise",
        (*(f"{round(angle * 180 / pi)} degrees" for angle in ORIENTATIONS[:-1]), "360 degrees, as 0"),
    ),
    Factor("x", "the place from left to right, 0 to 31", count=POSITIONS),
    Factor("y", "the place from top to bottom, 0 to 31", count=POSITIONS),
)
SEVERAL: Mapping[str, tuple[str, ...]] = {  # questions of several parts, which are factors
    "all": tuple(factor.name for factor in FACTORS),
    "numbers": ("scale", "x", "y"),
}
QUESTIONS = {  # what can be asked of an image
    "shape": "Which shape is it: square, ellipse or heart?",
    "scale": "How large is the shape?",
    "orientation": "How is the shape turned?",
    "position": "Where is the shape?",
    "all": "Which shape is it, how large, how turned, and where?",
    "numbers": "How large is the shape, and where is it? In numbers.",
}


def _classes(target: str) -> tuple[str, ...]:
    """The names of the answers to a question; of one of several parts, the shapes."""
    target = "shape" if target in SEVERAL else target
    if target == "position":
        return tuple(f"x {x}, y {y}" for x, y in np.ndindex(POSITIONS, POSITIONS))
    return next(factor.values for factor in FACTORS if factor.name == target)


def _labels(target: str, factors: Mapping[str, Tensor]) -> Tensor:
    """The class of every image, from its factors; if several are asked for, that of its shape."""
    target = "shape" if target in SEVERAL else target
    return factors["x"] * POSITIONS + factors["y"] if target == "position" else factors[target]


def _make(target: str, path: str | Path | None = None) -> tuple[Split, Split]:
    order = np.random.RandomState(0).permutation(IMAGES)
    places = torch.from_numpy(order.argsort())  # of the images of the grid, among those of both splits
    images = torch.empty(IMAGES, 1, SIDE, SIDE, dtype=torch.bool)
    for rows, some in _pictures(path, torch.device("cpu")):
        images[places[rows], 0] = some
    values = np.unravel_index(order, COUNTS)
    factors = {factor.name: torch.from_numpy(x) for factor, x in zip(FACTORS, values, strict=True)}
    labels = _labels(target, factors)

    def split(rows: slice) -> Split:
        return Split(images[rows], labels[rows], images[rows, 0], {name: x[rows] for name, x in factors.items()})

    return split(slice(TRAIN)), split(slice(TRAIN, None))


@cache
def dsprites(target: str = "shape", path: str | Path | None = None) -> Task:
    """The task of one factor (shape, scale, orientation or position), or of several. 75 % is for training.

    Several are "all" factors at once, or "numbers": the scale and the place.

    Args:
        path: the original's `.npz` file, which is read instead of drawing.

    Raises:
        PrismaError: no such target; or there is no such file, or it does not hold the original's images and factors.
    """
    if target not in QUESTIONS:
        raise PrismaError(f"there is no target {target!r} of dSprites; the nearest: {nearest(target, QUESTIONS)}")
    drawn, name = path is None, "dsprites" if target == "shape" else f"dsprites-{target}"
    made = None if drawn else _make(target, path)
    return Task(
        name=name if drawn else f"{name}-original",
        summary=f"{QUESTIONS[target]} {IMAGES:,} {'drawn' if drawn else 'original'} images of {SIDE}x{SIDE} pixels.",
        source="generated by this package: the factors of dSprites (Matthey et al. 2017, Apache-2.0), not its images"
        if drawn
        else "dSprites (Matthey et al. 2017, Apache-2.0)",
        labels=_classes(target),
        transform=Transform(size=(SIDE, SIDE), mean=(0.0,), std=(1.0,)),
        make=lambda: made or _make(target),
        sha256=SHA256[target] if made is None else data_hash(*made),
        factors=FACTORS,
        targets=SEVERAL.get(target, ()),
        rule=partial(_labels, target),
        license="mit" if drawn else "apache-2.0",
    )


SHA256 = {
    "shape": "dd1c79c524d2ebfdfc62646aab7265e0715e0e92d18f746b9185df6caea6d6fe",
    "scale": "82ecdccf899766975facdda7b7f1a51247058765f673582f6f53df8a991dba53",
    "orientation": "b76a5b8a47602f5803c29049f7d84200d4bbf2be355a65a0677dc5cdff48fc50",
    "position": "acc7097aac115fc2ebc1d7ada574047a6511c53bf0a9caeba6f48b161d4d078f",
    "all": "dd1c79c524d2ebfdfc62646aab7265e0715e0e92d18f746b9185df6caea6d6fe",  # its labels are the shapes
    "numbers": "dd1c79c524d2ebfdfc62646aab7265e0715e0e92d18f746b9185df6caea6d6fe",
}
DSPRITES = tuple(dsprites(target) for target in SHA256)
