"""The weights of step 0, of the model and of what is trained beside it."""

import torch
from torch import nn

from prisma.config import ViTConfig
from prisma.train.config import Recipe
from prisma.vit import ViT, build


def initial_model(config: ViTConfig, seed: int, init: str = "fan_in") -> ViT:
    """A model with the weights of step 0, drawn on the CPU so that they are the same on every device.

    Args:
        init: "fan_in", as the model draws them (`ViT.reset_parameters`); or "kaiming", as ViT-Prisma did in 2023:
            matrices N(0, 2 / fan_in), and the patches' weights and biases uniform within 1 / sqrt(fan_in).
    """
    with torch.random.fork_rng(devices=()), torch.device("cpu"):
        torch.manual_seed(seed)
        model = build(config)
        if init == "kaiming":
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            model.embed.patch.reset_parameters()
        return model


def initial_decoder(recipe: Recipe, place: torch.device) -> nn.Module | None:
    """The decoder that a recipe trains beside the model, on a device; None if it has none."""
    decoder = recipe.objective.decoder(recipe.training.init_seed)
    return None if decoder is None else decoder.to(place)
