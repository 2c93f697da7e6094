"""Activations of units: of sites, of modules, of channels; and names that there are not."""

import pytest
import torch
from torch import nn

import prisma
from prisma.analysis.modularity.unit_readings import Units, expect_units
from prisma.errors import PrismaError
from tests.variants import images_of, model_of


def test_sites_of_a_vision_transformer_by_token() -> None:
    model = model_of("base")
    images = images_of(model, 2)
    units = Units.of(model, ["blocks.*.mlp.post", "blocks.0.attn.z"])
    assert units.names == ("blocks.0.mlp.post", "blocks.1.mlp.post", "blocks.0.attn.z")
    found = units.read(images)
    _, acts = prisma.record(model, images, units.names)
    assert torch.equal(found["blocks.1.mlp.post"], acts["blocks.1.mlp.post"])
    assert torch.equal(units.of_images("blocks.0.attn.z", found["blocks.0.attn.z"]), acts["blocks.0.attn.z"].flatten(2))


def test_modules_of_a_network_by_channel_and_feature() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).eval()
    images, units = torch.rand(5, 2, 3, 3), Units.of(network, ["1", "3"])
    found = units.read(images)
    hidden = network[:2](images)
    assert torch.equal(units.by_place("1", found["1"]), hidden.flatten(2).mT)
    assert torch.allclose(units.of_images("1", found["1"])[:, 0], hidden.mean((2, 3)))
    assert torch.equal(units.of_images("3", found["3"])[:, 0], network(images))
    assert not any(part._forward_hooks for part in network.modules())


def test_names_that_there_are_not_are_one_sentence() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))
    with pytest.raises(PrismaError, match="expected the name of a module; found '2'; the nearest: "):
        Units.of(network.eval(), "2")
    with pytest.raises(PrismaError, match=r"found one in training: use .eval\(\)"):
        Units.of(network.train(), "0")
    with pytest.raises(PrismaError, match="expected 1 to give a tensor; found a tuple"):
        Units.of(network.eval(), "1").read(torch.zeros(1, 2))
    unused = nn.Sequential(nn.Linear(2, 2)).eval()
    unused.more = nn.ModuleList([nn.Linear(2, 2)])
    unused.forward = unused[0].forward  # type: ignore[method-assign]
    with pytest.raises(
        PrismaError, match=r"expected modules that a forward calls; found more.0, which it does not call"
    ):
        Units.of(unused, "more.0").read(torch.zeros(1, 2))
    with pytest.raises(PrismaError, match="the nearest"):
        Units.of(model_of("base"), "blocks.0.mlp.past")
    with pytest.raises(PrismaError, match="expected finite activations; found nan at a, in image 1"):
        expect_units({"a": torch.tensor([[0.0], [torch.nan]])})
