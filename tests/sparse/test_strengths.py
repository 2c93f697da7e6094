"""Histograms of strengths, against one that sees all strengths at once."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.sparse.strengths import BINS, Strengths


@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 40), batch=st.integers(1, 40))
def test_any_batches_give_the_histogram_of_all(seed: int, tokens: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(tokens, 3, generator=generator) * torch.tensor([1e-3, 1.0, 50.0]) * 4 ** torch.rand(tokens, 1)
    z[torch.rand(tokens, 3, generator=generator) < 0.5] = 0
    found = Strengths(3)
    for some in z.split(batch):
        found.add(some)
    for latent in range(3):
        values = [abs(x) for x in z[:, latent].tolist() if x]
        if not values:
            assert not found.counts[latent].any()
            continue
        top = 2.0 ** math.ceil(math.log2(max(values)))
        counts = [0] * BINS
        for x in values:
            counts[min(int(x / top * BINS), BINS - 1)] += 1
        assert found.range[latent].item() == top and found.counts[latent].tolist() == counts
