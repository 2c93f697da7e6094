"""Subspaces: exchanges within them, their angles, and what the next linear map reads."""

import torch

import prisma
from prisma.analysis.directions.places import Place
from prisma.analysis.directions.subspaces import (
    exchanged,
    overlap,
    principal_subspace,
    random_subspace,
    span_of,
    what_is_read,
)
from prisma.edits import Add
from tests.variants import images_of, model_of


def basis(dim: int, seed: int = 0) -> torch.Tensor:
    return random_subspace(6, dim, torch.Generator().manual_seed(seed))


def test_an_exchange_takes_the_components_of_the_source_and_keeps_the_others() -> None:
    r, (b, s) = basis(2), torch.randn(2, 4, 6, dtype=torch.float64)
    found = exchanged(b, s, r)
    torch.testing.assert_close(found @ r, s @ r)
    other = torch.eye(6).double() - r @ r.mT
    torch.testing.assert_close(found @ other, b @ other)
    assert torch.equal(exchanged(b, s, torch.zeros(6, 0).double()), b)


def test_principal_components_and_angles() -> None:
    r = basis(2)
    x = torch.randn(200, 2, dtype=torch.float64) * 5 @ r.mT + 0.1 * torch.randn(200, 6, dtype=torch.float64) + 3
    assert overlap(principal_subspace(x, 2), r).min() > 0.99
    assert overlap(r, r).min() > 1 - 1e-12
    other = torch.linalg.qr(torch.cat([r, torch.randn(6, 4).double()], dim=1)).Q[:, 2:]
    assert overlap(r, other).max() < 1e-12
    assert span_of(torch.cat([r, r @ torch.ones(2, 3).double()], dim=1)).shape == (6, 2)


def test_what_the_next_map_does_not_read_has_no_effect() -> None:
    model = model_of("base", d_mlp=20).requires_grad_(False)
    images = images_of(model, 2)
    for site, head, features, rank in (
        ("blocks.0.mlp.post", None, 20, 12),
        ("pooled", None, 12, 5),
        ("blocks.1.attn.z", 1, 4, 4),
    ):
        read = what_is_read(model, Place.of(model, site, "class", head))
        assert read is not None and read.shape == (features, rank)
        if rank < features:
            random = torch.randn(features, dtype=torch.float64)
            ignored = random - read @ (read.mT @ random)
            torch.testing.assert_close(prisma.run(model, images, {site: Add(ignored)}), prisma.run(model, images))
    assert what_is_read(model, Place.of(model, "blocks.0.resid_post", "class", None)) is None
    assert (
        what_is_read(model_of("sub_norms"), Place.of(model_of("sub_norms"), "blocks.0.mlp.post", "class", None)) is None
    )
    model.get_submodule("blocks.0.mlp.out").register_forward_hook(lambda m, a, y: y.sin())
    assert what_is_read(model, Place.of(model, "blocks.0.mlp.post", "class", None)) is None
