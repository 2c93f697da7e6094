"""The quadrature between 0 and 1: polynomials exactly, and never at the ends."""

import pytest

from prisma.analysis.attribution.quadrature import gauss_legendre


@pytest.mark.parametrize("steps", [1, 2, 5, 32])
def test_polynomials_are_integrated_exactly(steps: int) -> None:
    points = gauss_legendre(steps)
    assert len(points) == steps and all(0 < point < 1 for point, _ in points)
    for degree in range(2 * steps):
        assert sum(weight * point**degree for point, weight in points) == pytest.approx(1 / (degree + 1), rel=1e-12)
