"""Objectives compute what their formulas say."""

import pytest
import torch
import torch.nn.functional as F

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.readings import Activations
from prisma.errors import PrismaError
from prisma.features import Neuron
from prisma.features.objectives import Channel, Direction, Near, OfFunction, as_objective
from prisma.metrics import LogitDiff, Similarity
from prisma.sites import axes_of

SITE, HEADS = "blocks.0.resid_post", "blocks.0.attn.result"
torch.manual_seed(0)
X = {SITE: torch.randn(3, 6, 4), HEADS: torch.randn(3, 6, 2, 4), "logits": torch.randn(3, 5)}
ACTS = Activations(X, {site: axes_of(site) for site in X}, TokenGrid(True, 1, (1, 2, 2)))
V = torch.tensor([1.0, 2.0, 0.0, -1.0])


def test_channels_and_neurons() -> None:
    assert torch.allclose(Channel(SITE, 2).value(ACTS), X[SITE][:, 2:, 2].mean(1))
    assert torch.allclose(Channel(SITE, 2, "class").value(ACTS), X[SITE][:, 0, 2])
    assert torch.allclose(Channel("blocks.0.hook_resid_post", 2, 5).value(ACTS), X[SITE][:, 5, 2])
    assert torch.allclose(Channel(HEADS, 1, head=1).value(ACTS), X[HEADS][:, 2:, 1, 1].mean(1))
    assert torch.allclose(Channel("logits", 3).value(ACTS), X["logits"][:, 3])
    assert torch.allclose(Neuron(SITE, 2, token=1).value(ACTS), X[SITE][:, 1, 2])
    with pytest.raises(PrismaError, match=r"expected a feature of blocks.0.resid_post below 4; found 4"):
        Channel(SITE, 4).value(ACTS)


def test_directions_and_the_power_of_the_cosine() -> None:
    unit = V / V.norm()
    dot = X[SITE][:, 2:] @ unit
    assert torch.allclose(Direction(SITE, V).value(ACTS), dot.mean(1), atol=1e-6)
    assert torch.allclose(Direction(SITE, 7 * V).value(ACTS), dot.mean(1), atol=1e-6)
    cosine = (dot / X[SITE][:, 2:].norm(dim=-1)).clamp(min=0.1)
    assert torch.allclose(Direction(SITE, V, power=2.0).value(ACTS), (dot * cosine**2).mean(1), atol=1e-6)
    assert torch.allclose(Direction(HEADS, V, head=0, where="class").value(ACTS), X[HEADS][:, 0, 0] @ unit, atol=1e-6)
    whole = torch.tensor([1, 0, -2, 0])
    assert torch.equal(Direction(SITE, whole).value(ACTS), Direction(SITE, whole.float()).value(ACTS))
    assert Direction(SITE, V) != Direction(SITE, -V)
    for wrong in (torch.ones(3), torch.zeros(4)):
        with pytest.raises(
            PrismaError, match=r"expected a direction of blocks.0.resid_post, 4 numbers that are not all 0"
        ):
            Direction(SITE, wrong).value(ACTS)


def test_metrics_classes_and_own_functions() -> None:
    assert torch.allclose(as_objective(3).value(ACTS), X["logits"][:, 3])
    assert torch.allclose(as_objective(LogitDiff(1, 2)).value(ACTS), X["logits"][:, 1] - X["logits"][:, 2])
    prompt = torch.arange(1.0, 1 + X["logits"].shape[1])
    cosine = F.cosine_similarity(X["logits"], prompt[None], dim=1)
    assert torch.allclose(as_objective(Similarity(prompt)).value(ACTS), cosine)
    own = OfFunction(lambda acts: acts[SITE].mean((1, 2)), (SITE,))
    assert torch.allclose(own.value(ACTS), X[SITE].mean((1, 2))) and own.reads == (SITE,)
    assert torch.allclose(Near(own, 2.0).value(ACTS), -((X[SITE].mean((1, 2)) - 2) ** 2)) and Near(own, 2.0).per_image
    with pytest.raises(PrismaError, match=r"one number for each image \[3\]; found \[3, 6\]"):
        OfFunction(lambda acts: acts[SITE].mean(2), (SITE,)).value(ACTS)
    for wrong in ("logits:3", True, Channel, 0.5):
        with pytest.raises(PrismaError, match="expected an objective, a metric or a class; found"):
            as_objective(wrong)
