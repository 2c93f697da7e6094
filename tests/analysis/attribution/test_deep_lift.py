"""DeepLift: right where it has all rules, refused with the measured error where it has not."""

import sys

import pytest
import torch
from torch import nn

from prisma import PrismaError, load
from prisma.analysis.attribution.attribute import attribute, attribute_network
from prisma.analysis.attribution.questions import Neuron
from prisma.data import task


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 2), nn.Tanh(), nn.Flatten(), nn.Linear(72, 4)
    ).double()  # fmt: skip


def test_where_it_has_the_rules_it_adds_up() -> None:
    network, images = cnn(), torch.randn(3, 2, 10, 10, dtype=torch.float64)
    baseline = 0.1 * torch.randn(1, 2, 10, 10, dtype=torch.float64)
    found = attribute_network(network, images, [0, 2, 3], "deep_lift", patch=5, baseline=baseline, batch=2)
    assert found.error.max() < 1e-6
    change = (network(images) - network(baseline)).gather(1, torch.tensor([[0], [2], [3]]))[:, 0]
    torch.testing.assert_close(found.map.sum(1), change)
    assert not any(part._forward_hooks or part._backward_hooks for part in network.modules())  # captum took them off


def test_one_hidden_layer_is_what_the_rule_says() -> None:
    """The multiplier of a ReLU is the change of its output over that of its input."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    image = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    found = attribute_network(network, image, 1, "deep_lift", patch=1).map[0]
    first, last = network[1], network[3]
    at, base = first(image.flatten(1))[0], first.bias
    multiplier = (at.relu() - base.relu()) / (at - base)
    expected = (first.weight * image.flatten() * (last.weight[1] * multiplier)[:, None]).sum(0).view(2, 4).sum(0)
    torch.testing.assert_close(found, expected.detach())


def test_a_vision_transformer_is_refused_with_the_measured_error() -> None:
    sprites, mouse = task("sprites"), load("mice/sprites")
    images, labels = sprites.inputs("test", 4)
    with pytest.raises(PrismaError, match=r"found a ViT whose map adds up to .* times the change") as refused:
        attribute(mouse.model, images, labels, "deep_lift")
    error = float(str(refused.value).split("an error of ")[1].split(" ")[0])
    assert error > 0.5


def test_what_it_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = cnn(), torch.randn(1, 2, 10, 10, dtype=torch.float64)
    with pytest.raises(PrismaError, match="a metric of the logits"):
        attribute_network(network, images, Neuron("logits", 0), "deep_lift", patch=5)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setattr("prisma.errors.find_spec", lambda name: None)
    with pytest.raises(PrismaError, match=r"expected the package captum; .*prisma-vit\[attribution\]"):
        attribute_network(network, images, 1, "deep_lift", patch=5)
