"""A model whose weights come from elsewhere: first its outline, which takes no memory, then the weights."""

from collections.abc import Mapping
from typing import TypeVar, overload

import torch
from torch import Tensor

from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.text import TextTower
from prisma.vit import ViT

Model = TypeVar("Model", bound=ViT | TextTower)


@overload
def outline(config: ViTConfig) -> ViT: ...
@overload
def outline(config: TextConfig) -> TextTower: ...
@overload
def outline(config: ViTConfig | TextConfig) -> ViT | TextTower: ...


def outline(config: ViTConfig | TextConfig) -> ViT | TextTower:
    """The model with parameters that have a shape and no value (on the device `meta`). Its constants are real.

    Raises:
        PrismaError: this machine cannot hold the constants.
    """
    try:
        with torch.device("meta"):
            return TextTower(config) if isinstance(config, TextConfig) else ViT(config)
    except (RuntimeError, MemoryError) as error:  # of torch's allocator
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(f"expected a model that this machine can hold, found one that it cannot: {reason}") from None


def filled(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """The outline with these very tensors as its weights, in their precision; in evaluation mode and frozen."""
    model.load_state_dict(weights, assign=True)
    model.eval().requires_grad_(False)
    return model
