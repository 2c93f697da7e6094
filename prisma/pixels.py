"""Whether pixels can come from a model's transform.

A picture of 0 to 255, or one that was never normalised, has the right shape and type, and the answers are wrong.

The range is known where the transform is: `prisma.load` puts it on the model (`ViT.pixel_range`). Without it nothing is
checked.
"""

import torch
from torch import Tensor

from prisma.errors import warn

PixelRange = tuple[tuple[float, float], ...]
"""For each channel, the smallest and the largest number that the model's transform can give."""

SLACK = 10.0  # ranges, on either side: noise that an experiment adds to pictures is no mistake
ROUNDING = 0.02  # of the range: the mean of a black picture is its end, in half precision too
BEYOND = 0.5  # how far a transform must leave [0, 1], on both sides, for pixels within it to be suspicious
WIDE = 0.7  # how much of [0, 1] pixels span that look like pictures that were not normalised


def warn_of_range(images: Tensor, known: PixelRange | None) -> None:
    """Warn if images [batch, channel, ...] lie outside of what the transform can give, or look as if it was left out.

    They lie outside if their mean does, or if some pixels are far outside: noise around a picture is not meant.

    They look so if they span most of [0, 1] and do not leave it, though normalised pixels would go far beyond.
    """
    if known is None or not images.numel() or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return
    dims = [dim for dim in range(images.ndim) if dim != 1]
    try:
        numbers = torch.stack([f(images.detach(), dims).double() for f in (torch.amin, torch.amax, torch.mean)])
        ends, mean = numbers[:2].cpu(), numbers[2].tolist()
    except (RuntimeError, NotImplementedError):  # tensors without values: on meta, fake, or inside vmap
        return
    low, high = torch.tensor(known, dtype=torch.float64).T
    slack, centre = SLACK * (high - low), torch.tensor(mean, dtype=torch.float64)
    far = (ends[0] < low - slack) | (ends[1] > high + slack)
    rounding = ROUNDING * (high - low)
    outside = bool((far | (centre < low - rounding) | (centre > high + rounding)).any())
    first, last = ends[0].min().item(), ends[1].max().item()
    beyond = bool(((low < -BEYOND) | (high > 1 + BEYOND)).all())
    if outside or (beyond and first >= 0 and last <= 1 and last - first > WIDE):
        problem = "" if outside else " that look as if they were not normalised,"
        warn(
            f"expected pixels as this model's transform gives them, from {low.min():.3g} to {high.max():.3g}; found "
            f"pixels{problem} from {first:.3g} to {last:.3g}: use loaded.transform on "
            "pictures, or its normalise on pixels in [0, 1]"
        )
