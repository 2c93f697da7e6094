"""TPP, against a planted coder and a slow computation, in float64."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.sparse.probing import regression
from prisma.sparse.targeted import targeted_perturbation


def planted(n: int, seed: int, shared: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, activations and classes: latent c is active in images of class c alone, or the first two in both."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    z = torch.zeros(n, 5, dtype=torch.float64)
    z[torch.arange(n), labels] = 1 + torch.rand(n, generator=generator, dtype=torch.float64)
    z[:, 3] = torch.rand(n, generator=generator, dtype=torch.float64)  # of no class
    if shared:
        z[:, :3] = z[:, :3] @ torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    x = z @ torch.eye(5, dtype=torch.float64) + 0.01 * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return z, x, labels


def test_classes_with_latents_of_their_own_lose_only_these() -> None:
    found = targeted_perturbation(torch.eye(5), *planted(60, 0), *planted(60, 1), k=1)
    assert found.latents[:, 0].tolist() == [0, 1, 2] and torch.equal(found.accuracy, torch.ones(3).double())
    assert found.intended == pytest.approx(1 / 3) and found.unintended == 0 and found.tpp == pytest.approx(1 / 3)
    alike = targeted_perturbation(torch.eye(5), *planted(60, 0, shared=True), *planted(60, 1, shared=True), k=1)
    assert alike.tpp < 0.5 * found.tpp


def test_it_is_what_probes_of_ablated_activations_lose() -> None:
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    z, test_z = (torch.rand(50, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    x, test_x = (
        torch.randn(50, 4, generator=generator, dtype=torch.float64) + code @ directions for code in (z, test_z)
    )
    labels, test_labels = torch.arange(50) % 3, torch.arange(50) % 3
    x, test_x = (a + torch.eye(3, 4, dtype=torch.float64)[torch.arange(50) % 3] for a in (x, test_x))
    found = targeted_perturbation(directions, z, x, labels, test_z, test_x, test_labels, k=2)
    for a in range(3):
        there = labels == a
        probe = regression(x, there.long())
        weight = torch.stack(
            [(probe(row[None]) - probe(0 * row[None]))[0] @ torch.tensor([-1.0, 1]).double() for row in directions]
        )
        effects = [max(0.0, (z[there, j].mean() - z[~there, j].mean()).item()) * weight[j].item() for j in range(6)]
        best = sorted((j for j in range(6) if effects[j] > 0), key=lambda j: -effects[j])[:2]
        assert [j for j in found.latents[a].tolist() if j >= 0] == best
        ablated = test_x - sum((test_z[:, j, None] * directions[j] for j in best), torch.zeros(50, 4).double())
        for b in range(3):
            other = regression(x, (labels == b).long())
            before, after = ((other(y).argmax(1) == (test_labels == b)).double().mean() for y in (test_x, ablated))
            assert found.drop[a, b].item() == pytest.approx((before - after).item())
    off = [found.drop[a, b].item() for a in range(3) for b in range(3) if a != b]
    assert found.unintended == pytest.approx(sum(off) / 6)


def test_what_it_cannot_compare_is_said() -> None:
    z, x, labels = planted(30, 0)
    with pytest.raises(PrismaError, match="expected k from 1 to the number of latents, 5; found 6"):
        targeted_perturbation(torch.eye(5), z, x, labels, z, x, labels, k=6)
    with pytest.raises(PrismaError, match=r"expected the same two classes or more .* found \[0, 1, 2\] and \[0\]"):
        targeted_perturbation(torch.eye(5), z, x, labels, z, x, 0 * labels, k=1)
