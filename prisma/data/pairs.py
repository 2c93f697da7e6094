"""Two digits side by side: 6,000 pairs of the digits to train on, 1,000 of those to test; which two, is drawn.

The two halves of an image have nothing to do with each other, so a network that reads them could be two.

Source: as `prisma.data.digits`.
"""

import numpy as np
import torch

from prisma.data.digits import DIGITS
from prisma.data.task import SEED, Factor, Split, Task
from prisma.data.transform import Transform

COUNTS = {"train": 6000, "test": 1000}


def _make() -> tuple[Split, Split]:
    random = np.random.RandomState(SEED)
    train, test = (_pairs(DIGITS.splits[name], n, random) for name, n in COUNTS.items())
    return train, test


def _pairs(digits: Split, n: int, random: np.random.RandomState) -> Split:
    left, right = torch.from_numpy(random.randint(len(digits.labels), size=(2, n)).astype(np.int64))
    images = torch.cat([digits.images[left], digits.images[right]], dim=3)
    factors = {"left": digits.labels[left], "right": digits.labels[right]}
    return Split(images, factors["left"] + factors["right"], factors=factors)


_DIGITS = tuple("0123456789")

PAIRS = Task(
    name="pairs",
    summary="Two handwritten digits side by side: which two? 7,000 drawn pairs of 8x16 pixels.",
    source=DIGITS.source,
    labels=tuple(str(total) for total in range(19)),
    transform=Transform(size=(8, 16), mean=DIGITS.transform.mean, std=DIGITS.transform.std),
    make=_make,
    factors=(Factor("left", "the left digit", _DIGITS), Factor("right", "the right digit", _DIGITS)),
    targets=("left", "right"),
    rule=lambda factors: factors["left"] + factors["right"],
    license="cc-by-4.0",
    sha256="324d9fa789d863b7f1af89e67df12c82e495868e57250208cd330d6798ed166e",
)
