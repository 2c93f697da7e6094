"""A latent as what a map explains."""

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.latent_target import Latent
from tests.sparse.test_coders import random_coder
from tests.sparse.test_latent_nodes import FIRST, random_pair


def test_maps_of_a_latent_sum_to_how_much_it_changes() -> None:
    model, clean, _, _ = random_pair()
    coder = random_coder("standard", 12, 9, 3, 0, sites=(FIRST,))
    x = prisma.record(model, clean, FIRST)[1][FIRST]
    latent = int((coder.encode(x) > 0).sum((0, 1)).argmax())
    mean = Latent(coder, latent)
    assert torch.allclose(mean.value({FIRST: x}), coder.encode(x)[..., latent].mean(1)) and mean.tokens == ()
    at = Latent(coder, latent, token=2)
    assert torch.equal(at.value({FIRST: x}), coder.encode(x)[:, 2, latent]) and at.tokens == (2,)
    removed = prisma.attribute(model, clean, mean, "occlusion", absent="baseline")
    blank = clean.clone()
    blank[..., :2, :2] = 0
    other = coder.encode(prisma.record(model, blank, FIRST)[1][FIRST])[..., latent].mean(1)
    assert torch.allclose(removed.patches[:, 0, 0], mean.value({FIRST: x}) - other, atol=1e-10)
    assert removed.metadata["target"] == "Latent"


def test_what_it_cannot_be_is_said() -> None:
    model, clean, _, (coder, _) = random_pair()
    with pytest.raises(PrismaError, match="expected a latent from 0 to 8; found 9"):
        Latent(coder, 9)
    with pytest.raises(PrismaError, match="found a crosscoder"):
        Latent(random_coder("topk", 6, 9, 3, 0, sites=("a", "b"), widths=(2, 4)), 1)
    with pytest.raises(PrismaError, match=r"expected a token of blocks.0.resid_post below 10; found 12"):
        Latent(coder, 1, token=12).value(prisma.record(model, clean, FIRST)[1])
