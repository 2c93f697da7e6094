"""Losses and their gradients, and what kept the latents of other libraries dead."""

import pytest
import torch

from prisma.sparse.coders import Coder
from prisma.sparse.losses import AUX, BANDWIDTH, auxk, jump, loss, step
from tests.sparse.test_coders import random_coder

NONE = torch.zeros(12, dtype=torch.bool)


def trained(kind: str, **more: object) -> Coder:
    return random_coder(kind, 4, 12, 3, 0, **more).requires_grad_(True)


def tokens(n: int = 20) -> torch.Tensor:
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["topk", "abstopk", "groupmax", "batchtopk"])
def test_the_error_is_that_of_the_reconstruction(kind: str) -> None:
    coder, x = trained(kind), tokens()
    z = coder.encode(x, as_trained=True)
    found = loss(coder, x, x, sparsity=0.0, dead=NONE, k_aux=0)
    assert found.total.item() == pytest.approx(((x - coder.decode(z)).square().sum() / x.square().sum()).item())
    assert torch.equal(found.active, (z != 0).any(0)) and found.l0.item() == pytest.approx((z != 0).sum().item() / 20)
    assert found.error.item() == found.total.item()


def test_matryoshka_is_the_mean_over_prefixes() -> None:
    coder, x = trained("matryoshka", prefixes=(3, 7, 12)), tokens()
    z, errors = coder.encode(x, as_trained=True), []
    for high in (3, 7, 12):
        y = z[:, :high] @ coder.W_dec[:high] + coder.b_dec
        errors.append((x - y).square().sum() / x.square().sum())
    found = loss(coder, x, x, sparsity=0.0, dead=NONE, k_aux=0)
    assert found.total.item() == pytest.approx(sum(errors).item() / 3)  # type: ignore[union-attr]


def test_standard_and_gated_have_their_penalties() -> None:
    coder, x = trained("standard"), tokens()
    z = coder.encode(x)
    wanted = (x - coder.decode(z)).square().sum() / x.square().sum() + 0.5 * (
        z * coder.W_dec.norm(dim=1)
    ).sum() / 20 / 4
    assert loss(coder, x, x, sparsity=0.5, dead=NONE, k_aux=0).total.item() == pytest.approx(wanted.item())
    gated = trained("gated")
    gate = gated.pre(x).relu()
    error = (x - gated(x)).square().sum() + (x - gate @ gated.W_dec - gated.b_dec).square().sum()
    wanted = error / x.square().sum() + 0.5 * (gate * gated.W_dec.norm(dim=1)).sum() / 20 / 4
    found = loss(gated, x, x, sparsity=0.5, dead=NONE, k_aux=0)
    assert found.total.item() == pytest.approx(wanted.item())
    (of_decoder,) = torch.autograd.grad(found.total, gated.W_dec)
    assert of_decoder.abs().sum() > 0


def test_thresholds_get_the_straight_through_gradient() -> None:
    w, theta = BANDWIDTH, torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([[0.5 + w / 4, 0.5 + w], [0.5 - w / 4, 2.0]], dtype=torch.float64, requires_grad=True)
    of_p, of_theta = torch.autograd.grad(jump(p, theta).sum(), (p, theta))
    assert of_p.tolist() == [[1, 1], [0, 1]]
    assert of_theta.tolist() == pytest.approx([-2 * 0.5 / w, 0])  # two numbers are near the first threshold
    (of_theta,) = torch.autograd.grad(step(p, theta).sum(), theta)
    assert of_theta.tolist() == pytest.approx([-2 / w, 0])


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "standard", "jumprelu", "gated"])
def test_auxk_revives_latents_whose_pre_activations_are_negative(kind: str) -> None:
    """sparsify: no gradient for the encoder at all; dictionary_learning: none behind the relu."""
    coder, x = trained(kind), tokens()
    dead = torch.arange(12) >= 8
    with torch.no_grad():
        coder.bias[dead] -= 100
    found = loss(coder, x, x, sparsity=0.0, dead=dead, k_aux=2)
    (of_encoder,) = torch.autograd.grad(found.total, coder.W_enc)
    assert not found.active[dead].any() and (coder.pre(x)[:, dead] < 0).all()
    assert (of_encoder[:, dead].abs().sum(0) > 0).sum() >= 2


def test_auxk_decodes_without_the_bias() -> None:
    """Where the residual is what the dead latents write, AuxK is zero whatever the bias is (sparsify #132)."""
    coder, x = trained("topk"), tokens()
    dead = torch.arange(12) >= 8
    with torch.no_grad():
        p = coder.pre(x)[:, dead]
        kept = p.topk(2).indices
        residual = torch.zeros_like(p).scatter(1, kept, p.gather(1, kept)) @ coder.W_dec[dead]
    assert coder.b_dec.abs().sum() > 0
    assert auxk(coder, x, residual, dead, 2).item() == pytest.approx(0, abs=1e-20)
    without = loss(coder, x, x, sparsity=0.0, dead=NONE, k_aux=2)
    rest = (x - coder.encode(x) @ coder.W_dec - coder.b_dec).detach()
    wanted = without.total + AUX * auxk(coder, x, rest, dead, 2)
    assert loss(coder, x, x, sparsity=0.0, dead=dead, k_aux=2).total.item() == pytest.approx(wanted.item())


def test_a_transcoder_is_compared_with_its_target() -> None:
    coder = random_coder("topk", 4, 12, 3, 0, target="out", d_out=6, skip=True, centred=False).requires_grad_(True)
    x, y = tokens(), torch.randn(20, 6, dtype=torch.float64)
    found = loss(coder, x, y, sparsity=0.0, dead=NONE, k_aux=0)
    assert found.total.item() == pytest.approx(((y - coder(x)).square().sum() / y.square().sum()).item())
    assert torch.autograd.grad(found.total, coder.W_skip)[0].abs().sum() > 0
