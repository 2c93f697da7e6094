"""A ViT with an artifact, and the neuron that makes it."""

from typing import Any

import torch

from prisma import ViT
from tests.variants import BASE, model_of

PATCH, NEURON = 3, 4


def with_register_neuron(variant: str = "base", **changes: Any) -> ViT:
    """Neuron 4 of the first block answers at patch 3 alone, where it writes a vector as long as no other."""
    model = model_of(variant, **changes)
    direction = torch.zeros(BASE["d_model"])
    direction[:2] = torch.tensor([1.0, -1.0])  # a norm takes away what all features share
    block = model.blocks[0]
    with torch.no_grad():
        assert model.embed.positions is not None
        model.embed.positions[PATCH] += 18 * direction
        block.get_parameter("mlp.pre.weight")[NEURON] = 8 * direction / block.get_parameter("ln2.weight")
        block.get_parameter("mlp.pre.bias")[NEURON] = -30
        block.get_parameter("mlp.out.weight")[:, NEURON] = 60 * direction.roll(5)
    return model
