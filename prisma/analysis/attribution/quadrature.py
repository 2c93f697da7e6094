"""Where to evaluate a function between 0 and 1, so that a weighted sum of few values is its integral."""

import numpy as np


def gauss_legendre(steps: int) -> list[tuple[float, float]]:
    """(point, weight) of `steps` points: exact for polynomials of degree 2 steps - 1, and never at 0 or 1 itself.

    The ends matter: a metric that is smallest at a run itself, such as a divergence from it, has no slope there.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    return list(zip(((points + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
