"""Maps from gradients between a baseline and the image: integrated gradients and gradient SHAP.

    map = (x - x0) * integral over a from 0 to 1 of dtarget/dx (x0 + a (x - x0)),   summed over the pixels of each token

The sum of the map is target(x) - target(x0) (completeness), for integrated gradients up to the error of the quadrature.

Sources: Sundararajan et al. 1703.01365 (integrated gradients); Lundberg and Lee 1705.07874, Erion et al. 1906.10670
(gradient SHAP, also called expected gradients).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from prisma.analysis.attribution.games import Game
from prisma.analysis.attribution.quadrature import gauss_legendre
from prisma.errors import PrismaError

MOST_STEPS = 1024
"""Points on the path up to which it is refined."""


def integrated_gradients(game: Game, steps: int, tolerance: float | None = None) -> tuple[Tensor, Tensor]:
    """The map [image, token] and the change of the target [image] that it divides.

    Args:
        steps: points of Gauss-Legendre on the path.
        tolerance: images whose map does not add up to within this share of what it moves are computed again with twice
            as many points, up to `MOST_STEPS`; None to leave them.
    """
    change, rows = game.whole - game.empty, torch.arange(len(game.images), device=game.images.device)
    map_BT = _integral(game, rows, steps)
    while tolerance is not None and 2 * steps <= MOST_STEPS:
        off = (map_BT.sum(1) - change).abs() > tolerance * map_BT.abs().sum(1)
        if not bool(off.any()):
            break
        steps, rows = 2 * steps, off.nonzero()[:, 0]
        map_BT[rows] = _integral(game, rows, steps)
    return map_BT, change


def _integral(game: Game, rows: Tensor, steps: int) -> Tensor:
    """The map of some images [row, token]."""
    points = gauss_legendre(steps)
    parts = [_along(game, some, ((a, w, game.baseline[some]) for a, w in points)) for some in game.passes(4, rows)]
    return torch.cat(parts)


def gradient_shap(game: Game, steps: int, seed: int, baselines: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As integrated gradients, at random points, each of them from a baseline that is drawn anew.

    The points are one in each of `steps` equal parts of the path, so that the error falls faster than by chance alone.

    Args:
        baselines: [baseline, channel, ...], from which one is drawn for each step and image; by default the game's own.

    Returns:
        The map, and the target minus its mean over the baselines that were drawn.
    """
    generators = [torch.Generator().manual_seed(seed + image) for image in range(len(game.images))]
    jitter, parts, starts = torch.stack([torch.rand(steps, generator=one) for one in generators], dim=1), [], []
    points = ((torch.arange(steps)[:, None] + jitter) / steps).tolist()
    choices = None
    if baselines is not None:
        drawn_for = [torch.randint(len(baselines), (steps,), generator=one) for one in generators]
        choices = torch.stack(drawn_for, dim=1)
    for rows in game.passes(copies=4):
        at = rows.tolist()
        drawn = (game.baseline[rows] if choices is None else baselines[choices[s, at]] for s in range(steps))  # type: ignore[index]
        scale = 1 / steps
        parts.append(_along(game, rows, (([points[s][i] for i in at], scale, x0) for s, x0 in enumerate(drawn))))
        if choices is not None:
            starts.append(_mean_over(game, rows, baselines, choices[:, at]))  # type: ignore[arg-type]
    empty = torch.cat(starts) if starts else game.empty
    return torch.cat(parts), game.whole - empty


def _along(game: Game, rows: Tensor, points: Iterable[tuple[float | list[float], float, Tensor]]) -> Tensor:
    """Sum over points (place, weight, baseline) of weight * (x - x0) * gradient [row, token]."""
    x, total = game.images[rows], torch.zeros(0)
    for place, weight, start in points:
        share = torch.as_tensor(place, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.ndim - 1))
        product = weight * (x - start) * gradient(game, start + share * (x - start), rows)
        by_token = game.by_token(product.to(torch.promote_types(product.dtype, torch.float32)))
        total = by_token if not len(total) else total + by_token
    return total


def gradient(game: Game, pixels: Tensor, rows: Tensor) -> Tensor:
    """Gradient of the target by pixels [row, ...]. Raises PrismaError: the target has none."""
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_()
        values = game.of_pixels(leaf, rows)
        if not values.requires_grad:
            raise PrismaError(f"expected a target that has a gradient; found {game.target!r}, which has none")
        return torch.autograd.grad(values.sum(), leaf)[0]


@torch.no_grad()
def _mean_over(game: Game, rows: Tensor, baselines: Tensor, choices: Tensor) -> Tensor:
    """The mean of the target over the baselines that each image drew [row]; `choices` is [step, row]."""
    values = torch.stack([game.of_pixels(one.expand_as(game.images[rows]), rows) for one in baselines])
    return values.gather(0, choices.to(values.device)).mean(0)
