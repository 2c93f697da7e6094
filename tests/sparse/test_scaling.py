"""Centred and scaled coordinates, and coders of raw activations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.errors import PrismaError
from prisma.sparse.coders import KINDS
from prisma.sparse.scaling import Scaling, of_raw_activations
from tests.sparse.test_coders import random_coder


def test_scaled_activations_have_mean_zero_and_numbers_of_about_one() -> None:
    x = 3 + 2 * torch.randn(500, 4, dtype=torch.float64)
    scaling = Scaling.of(x, "a")
    y = scaling(x)
    assert y.mean(0).abs().max() < 1e-12 and y.square().mean().item() == pytest.approx(1)
    spread = (x - x.mean(0)).square().sum(1).mean().sqrt()
    assert scaling.gamma == pytest.approx((x.mean(0).norm() / spread).item())
    with pytest.raises(PrismaError, match="activations at a that differ from token to token; found 5 equal ones"):
        Scaling.of(torch.ones(5, 4), "a")


@given(st.sampled_from(KINDS), st.integers(0, 50))
def test_a_coder_of_raw_activations_does_the_same(kind: str, seed: int) -> None:
    """SAELens forgot b_dec, and checkpoints, when it folded a scale into the weights."""
    coder = random_coder(kind, 4, 12, 3, seed)
    x = 5 + 3 * torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scaling = Scaling.of(x, "a")
    raw = of_raw_activations(coder, scaling).double()
    z = coder.encode(scaling(x))
    assert torch.allclose(raw.encode(x) * scaling.unit, z, atol=1e-9)
    assert torch.allclose(scaling(raw(x)), coder(scaling(x)), atol=1e-9)
    assert torch.allclose(raw.W_dec, coder.W_dec)  # directions keep their length


@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
def test_a_transcoder_of_raw_activations_does_the_same(kind: str) -> None:
    coder = random_coder(kind, 4, 12, 3, 1, target="out", d_out=5, skip=True, centred=False)
    x, y = 5 + torch.randn(30, 4, dtype=torch.float64), 7 * torch.randn(30, 5, dtype=torch.float64) - 2
    of_x, of_y = Scaling.of(x, "a"), Scaling.of(y, "b")
    raw = of_raw_activations(coder, of_x, of_y).double()
    assert torch.allclose(of_y(raw(x)), coder(of_x(x)), atol=1e-9)
    assert torch.allclose(raw.encode(x) * of_y.unit, coder.encode(of_x(x)), atol=1e-9)


def test_sites_of_a_crosscoder_keep_scales_of_their_own() -> None:
    coder = random_coder("topk", 7, 12, 3, 1, sites=("a", "b"), widths=(3, 4))
    x = torch.cat([torch.randn(30, 3) + 1, 40 * torch.randn(30, 4)], -1).double()
    scaling = Scaling.side_by_side([Scaling.of(x[:, :3], "a"), Scaling.of(x[:, 3:], "b")])
    raw = of_raw_activations(coder, scaling).double()
    assert torch.allclose(scaling(raw(x)), coder(scaling(x)), atol=1e-9)
    assert torch.equal(raw.encode(x) != 0, coder.encode(scaling(x)) != 0)
