"""Monosemanticity and spatial coherence, against loops over pairs."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from prisma.errors import PrismaError
from prisma.sparse.monosemanticity import monosemanticity, morans_i


@given(st.integers(3, 7), st.integers(0, 99))
def test_it_is_the_weighted_mean_over_all_pairs(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, e = (
        torch.rand(n, 3, dtype=torch.float64, generator=generator),
        torch.randn(n, 5, dtype=torch.float64, generator=generator),
    )
    a = (z - z.amin(0)) / (z.amax(0) - z.amin(0))
    pairs = [(i, j) for i in range(n) for j in range(i)]
    cosine = {(i, j): F.cosine_similarity(e[i], e[j], dim=0) for i, j in pairs}
    raw = monosemanticity(z, e, centred=False)
    for latent in range(3):
        weight = {(i, j): a[i, latent] * a[j, latent] for i, j in pairs}
        if sum(weight.values()) > 1e-9:
            wanted = sum(weight[p] * cosine[p] for p in pairs) / sum(weight.values())
            assert raw[latent].item() == pytest.approx(wanted.item(), abs=1e-8)
    floor = sum(cosine.values()) / len(pairs)
    assert torch.allclose(monosemanticity(z, e), raw - floor, atol=1e-9, equal_nan=True)


def test_constant_latents_have_none_and_shapes_are_checked() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    assert monosemanticity(z, torch.randn(3, 2)).isnan().tolist() == [True, False]
    with pytest.raises(PrismaError, match="two images or more; found 3 and 2"):
        monosemanticity(z, torch.randn(2, 2))


def test_morans_i_is_the_sum_over_neighbours() -> None:
    maps = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for x, found in zip(maps, morans_i(maps).tolist(), strict=True):
        d, top, weights = x - x.mean(), 0.0, 0
        cells = [(i, j) for i in range(3) for j in range(5)]
        for a in cells:
            for b in cells:
                if a != b and abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1:
                    top, weights = top + (d[a] * d[b]).item(), weights + 1
        assert found == pytest.approx(15 / weights * top / d.square().sum().item())
    halves = torch.zeros(1, 8, 8)
    halves[:, :, 4:] = 1
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    assert morans_i(halves).item() > 0.7 and morans_i(board[None]).item() < 0.1
    with pytest.raises(PrismaError, match="expected maps"):
        morans_i(torch.zeros(3, 4))


def test_a_latent_active_on_one_image_has_no_pairs() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, 1.0], [0.0, 0.0]])
    found = monosemanticity(z, torch.randn(3, 4))
    assert found[0].isnan() and found[1].isfinite()
