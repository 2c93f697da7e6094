"""Parameterisations: their formulas, any channels and sizes, and that images do not mix."""

import math

import pytest
import torch

from prisma.errors import PrismaError
from prisma.features.cppn import CPPN
from prisma.features.images import FFT, Pixels, Pyramid, frequencies
from prisma.features.maco import MACO

SHAPES = [(1, 8, 8), (3, 7, 10), (2, 9, 4)]
LARGE = (3, 518, 518)  # as DINOv2 takes them
KINDS = [FFT(), FFT(decay=0.0), Pixels(), Pyramid(), Pyramid(levels=1), CPPN(width=6, layers=2), MACO()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_an_image_has_its_shape_and_depends_on_its_own_numbers_alone(kind, shape) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    kind = kind.of_data(torch.randn(6, *shape))
    numbers = [x.requires_grad_() for x in kind.begin(3, shape, torch.Generator().manual_seed(1))]
    if isinstance(kind, CPPN):
        numbers = [(x + 0.1 * torch.randn_like(x)).detach().requires_grad_() for x in numbers]
    x = kind.draw(numbers, shape)
    assert x.shape == (3, *shape) and x.isfinite().all()
    gradients = torch.autograd.grad(x[1].square().sum(), numbers)
    assert all(g[0].abs().sum() == 0 == g[2].abs().sum() for g in gradients)
    assert any(g[1].abs().sum() > 0 for g in gradients)
    again = kind.begin(3, shape, torch.Generator().manual_seed(1))
    assert isinstance(kind, CPPN) or all(torch.equal(a, b) for a, b in zip(again, numbers, strict=True))


@pytest.mark.parametrize("kind", [FFT(), Pixels(), Pyramid(), CPPN(width=4, layers=2), MACO()], ids=repr)
def test_images_of_518_pixels(kind) -> None:  # type: ignore[no-untyped-def]
    kind = kind.of_data(torch.randn(1, *LARGE))
    numbers = kind.begin(1, LARGE, torch.Generator().manual_seed(1))
    assert kind.draw(numbers, LARGE).shape == (1, *LARGE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [FFT(), FFT(decay=2.0), Pixels(), Pyramid()], ids=repr)
def test_a_picture_is_encoded_exactly(kind, shape) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(2, *shape)
    assert torch.allclose(kind.draw(kind.encode(x), shape), x, atol=1e-5)


def test_the_spectrum_falls_with_the_frequency() -> None:
    """The power of noise at each frequency is 1 / f ** (2 decay), averaged over many images."""
    shape, kind = (1, 16, 16), FFT(decay=1.0)
    x = kind.draw(kind.begin(4000, shape, torch.Generator().manual_seed(0)), shape)
    power = torch.fft.rfft2(x, norm="ortho").abs().square().mean((0, 1))
    f = frequencies(16, 16)
    inner = (f > 0.1) & (f < 0.4)
    inner[:, [0, -1]] = False  # there a real image has pairs of equal entries
    slope = torch.stack([f[inner].log(), torch.ones(int(inner.sum()))], 1).pinverse() @ power[inner].log()
    assert slope[0] == pytest.approx(-2, abs=0.1)
    assert torch.allclose(f[:, 0], torch.fft.fftfreq(16).abs()) and f.max() == pytest.approx(math.sqrt(0.5))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PrismaError, match="expected at least one level; found levels=0"):
        Pyramid(levels=0)
