"""Baselines: what stays as it was drawn stays, and bases are bases."""

import torch

from prisma.sparse.activations import source_of
from prisma.sparse.baselines import baselines, principal_axes
from prisma.sparse.coders import drawn
from prisma.sparse.training import train
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"


def test_they_are_what_they_say() -> None:
    model = model_of("base", torch.float32)
    images = images_of(model, 20)
    coder = train(model, images, site=SITE, width=16, k=3, steps=5)
    source = source_of(model, images, [SITE])
    found = baselines(coder, model, images, source, k=3, tokens="all", steps=5, seed=2)
    assert list(found) == ["random decoder", "random encoder", "pca", "neurons"]
    first = drawn(coder.config, 2)
    assert torch.equal(found["random decoder"].W_dec, first.W_dec) and not torch.equal(
        found["random decoder"].W_enc, first.W_enc
    )
    size = (found["random encoder"].W_enc / first.W_enc).mean()  # the encoder is as drawn, but for one number
    assert found["random encoder"].W_enc.allclose(size * first.W_enc, rtol=1e-5) and 0.3 < size < 1
    assert not torch.equal(found["random encoder"].W_dec, first.W_dec)
    x = source.read(range(20))[SITE].flatten(0, 1)
    for name in ("pca", "neurons"):
        z = found[name].encode(x)
        assert ((z != 0).sum(1) == 3).all() and torch.equal(
            found[name].W_dec @ found[name].W_enc, found[name].W_dec @ found[name].W_dec.T
        )
    assert torch.equal(found["neurons"].W_dec, torch.eye(12))


def test_principal_axes_are_those_of_the_singular_vectors() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 5.0, 2.0, 0.5]) + 3
    axes, (_, _, v) = principal_axes(x), torch.linalg.svd(x - x.mean(0), full_matrices=False)
    assert torch.allclose((axes @ v.T).abs(), torch.eye(4).double(), atol=1e-6)
