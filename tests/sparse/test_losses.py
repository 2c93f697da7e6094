"""Losses and their gradients, and what kept the latents of other libraries dead."""

import pytest
import torch

from prisma.sparse.coders import KINDS, Coder
from prisma.sparse.losses import (
    AUX,
    BANDWIDTH,
    SMALLEST,
    SMALLEST_RESIDUAL,
    auxk,
    best_scale,
    jump,
    loss,
    step,
)
from tests.sparse.test_coders import random_coder

NONE = torch.zeros(0, dtype=torch.long)


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


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_zeros_is_divided_by_the_smallest_size(kind: str) -> None:
    """By their own size it was 0 / 0, and by one near 0 the gradient of a batch was that of billions."""
    coder, x = trained(kind), tokens()
    for y in (torch.zeros_like(x), 1e-9 * x):
        found = loss(coder, x, y, sparsity=0.0, dead=NONE, k_aux=0)
        wanted = (y - coder.decode(coder.encode(x, as_trained=True))).square().sum() / (SMALLEST * y.numel())
        assert found.error.item() == pytest.approx(wanted.item()) and wanted > 1
        gradient = torch.autograd.grad(found.total, coder.W_dec)[0]
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert best_scale(coder, torch.zeros_like(x), torch.zeros_like(x)).isfinite()


def test_auxk_of_a_residual_that_is_the_same_everywhere_is_a_number() -> None:
    coder, x = trained("topk"), tokens()
    residual, dead = torch.ones_like(x), torch.arange(8, 12)
    found = auxk(coder, x, residual, dead, 4)
    guess = coder.pre(x)[:, dead] @ coder.W_dec[dead]
    assert found.item() == pytest.approx(((residual - guess).square().mean() / SMALLEST_RESIDUAL).item())


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
    by_gate = gate @ gated.W_dec.detach() + gated.b_dec.detach()  # this part trains the gate alone
    error = (x - gated(x)).square().sum() + (x - by_gate).square().sum()
    wanted = error / x.square().sum() + 0.5 * (gate * gated.W_dec.norm(dim=1)).sum() / 20 / 4
    found = loss(gated, x, x, sparsity=0.5, dead=NONE, k_aux=0)
    assert found.total.item() == pytest.approx(wanted.item())
    weights = [gated.get_parameter(name) for name in ("W_dec", "b_dec", "W_enc", "b_gate", "b_mag", "r_mag")]
    for one, other in zip(*(torch.autograd.grad(x, weights) for x in (found.total, wanted)), strict=True):
        assert one.abs().sum() > 0 and torch.allclose(one, other, atol=1e-10)


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
    dead = torch.arange(8, 12)
    with torch.no_grad():
        coder.bias[dead] -= 100
    found = loss(coder, x, x, sparsity=0.0, dead=dead, k_aux=2)
    (of_encoder,) = torch.autograd.grad(found.total, coder.W_enc)
    assert not found.active[dead].any() and (coder.pre(x)[:, dead] < 0).all()
    assert (of_encoder[:, dead].abs().sum(0) > 0).sum() >= 2


def test_auxk_decodes_without_the_bias() -> None:
    """Where the residual is what the dead latents write, AuxK is zero whatever the bias is (sparsify #132)."""
    coder, x = trained("topk"), tokens()
    dead = torch.arange(8, 12)
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


@pytest.mark.parametrize("k", [2, 6])
def test_auxk_with_room_for_more_latents_is_that_of_those_that_are_meant(k: int) -> None:
    coder, x = trained("topk"), tokens()
    residual, weights = torch.randn_like(x), (coder.W_enc, coder.W_dec, coder.b_enc)
    dead, roomy = torch.arange(4, 8), torch.tensor([4, 5, 6, 7, 0, 0, 0, 0])
    wanted = auxk(coder, x, residual, dead, min(k, 4))
    found = auxk(coder, x, residual, roomy, k, torch.tensor(4))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    for a, b in zip(*(torch.autograd.grad(x, weights) for x in (found, wanted)), strict=True):
        assert torch.allclose(a, b, atol=1e-12) and a.isfinite().all()


def test_a_transcoder_is_compared_with_its_target() -> None:
    coder = random_coder("topk", 4, 12, 3, 0, target="out", d_out=6, skip=True, centred=False).requires_grad_(True)
    x, y = tokens(), torch.randn(20, 6, dtype=torch.float64)
    found = loss(coder, x, y, sparsity=0.0, dead=NONE, k_aux=0)
    assert found.total.item() == pytest.approx(((y - coder(x)).square().sum() / y.square().sum()).item())
    assert torch.autograd.grad(found.total, coder.W_skip)[0].abs().sum() > 0


def test_the_estimate_looks_at_raw_pre_activations() -> None:
    """A pre-activation far below zero is far from every threshold; after a relu it would seem to lie beside it."""
    p = torch.tensor([[-5.0], [-0.05], [0.15], [0.6]], dtype=torch.float64)
    for near in range(len(p)):
        theta = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
        jump(p[near : near + 1], theta).sum().backward()
        wanted = -0.1 / BANDWIDTH if abs(p[near].item() - 0.1) < BANDWIDTH / 2 else 0.0
        assert theta.grad is not None and theta.grad.item() == pytest.approx(wanted)
    below = torch.tensor([[-0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    jump(below, torch.tensor([-1.0, -1.0], dtype=torch.float64)).sum().backward()
    assert below.grad is not None and below.grad.tolist() == [[0, 1]]  # a relu, whatever the threshold


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_loss_and_gradients_in_bfloat16(kind: str) -> None:
    """Under autocast, as trainings with `bfloat16=True` compute it, with AuxK of dead latents."""
    prefixes = (6, 12) if kind == "matryoshka" else ()
    exact = random_coder(kind, 4, 12, 3, 0, prefixes=prefixes).float().requires_grad_(True)
    x, dead = tokens(200).float(), torch.arange(4)
    whole = loss(exact, x, x, sparsity=0.1, dead=dead, k_aux=2).total
    whole.backward()
    wanted = {name: w.grad.clone() for name, w in exact.named_parameters() if w.grad is not None}
    exact.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(exact, x, x, sparsity=0.1, dead=dead, k_aux=2).total
    found.backward()
    assert found.item() == pytest.approx(whole.item(), rel=0.05)
    assert wanted.keys() == {name for name, w in exact.named_parameters() if w.grad is not None}
    for name in ("W_enc", "W_dec"):
        gradient = exact.get_parameter(name).grad
        assert gradient is not None and torch.cosine_similarity(gradient.flatten(), wanted[name].flatten(), 0) > 0.95
