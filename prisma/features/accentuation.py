"""Feature accentuation: a real image in which what drives a unit is made stronger, and little else changes.

The image begins as the picture, to the last black and white pixel, in a spectrum whose low frequencies move first, and
every step towards the objective is held back by the distance from the picture.

Source: Hamblin et al. 2402.10039, Feature Accentuation: Revealing 'What' Features Respond to in Natural Images.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from prisma.errors import PrismaError
from prisma.features.images import FFT, Image
from prisma.features.objectives import as_objective
from prisma.features.references import Distance
from prisma.features.robustness import Robustness
from prisma.features.visualize import Features, visualize
from prisma.loaded import Loaded

GENTLE = Robustness(jitter=0.02, zoom=(0.97, 1.03), rotate=2.0, pad="edge")


def accentuate(
    model: "Loaded | nn.Module",
    objectives: Any,
    pictures: Tensor,
    *,
    distance: float = 10.0,
    image: Image | None = None,
    steps: int = 64,
    robustness: Robustness = GENTLE,
    **others: Any,
) -> Features:
    """What in this picture drives the unit? The same picture with more of it, near to what it was.

    Read `images` beside the picture: what changed is what the unit answers to there. `activation` includes what is
    subtracted for the distance.

    Args:
        objectives: one, or one for each picture.
        pictures: [channel, height, width] or [n, channel, height, width] in [0, 1].
        distance: how much of an objective a distance of 1 costs; 0 lets the image go anywhere.
        image: the parameterisation, by default `FFT()`; others: as of `visualize`.

    Raises:
        PrismaError: as `visualize`; or as many objectives as pictures are not there.
    """
    seeds = pictures if pictures.ndim == 4 else pictures[None]
    several: Sequence[Any] = objectives if isinstance(objectives, list | tuple) else [objectives] * len(seeds)
    if len(several) != len(seeds):
        raise PrismaError(f"expected one objective, or one for each of {len(seeds)} pictures; found {len(several)}")
    held = [-distance * Distance(seed) + as_objective(x) for x, seed in zip(several, seeds, strict=True)]
    chosen = FFT() if image is None else image
    return visualize(model, held, chosen, steps=steps, robustness=robustness, start=seeds, **others)
