"""A model for given weights: first its outline, whose parameters take no memory, then the weights."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from prisma.bounds import expect_memory
from prisma.config import TextConfig, ViTConfig
from prisma.errors import NotFiniteError, PrismaError
from prisma.numbers import are_finite, first_not_finite
from prisma.text import TextTower
from prisma.vit import ViT

Model = TypeVar("Model", bound=ViT | TextTower)
NAMED = 5  # the largest number of parameters that a message names


@overload
def outline(config: ViTConfig) -> ViT: ...
@overload
def outline(config: TextConfig) -> TextTower: ...
@overload
def outline(config: ViTConfig | TextConfig) -> ViT | TextTower: ...


def outline(config: ViTConfig | TextConfig) -> ViT | TextTower:
    """The model with parameters on the device `meta`: a shape without values. Its constants are computed.

    Raises:
        PrismaError: the constants do not fit into memory.
    """
    expect_memory(8 * config.n_constants, "the constants of this model")
    try:
        with torch.device("meta"):
            return TextTower(config) if isinstance(config, TextConfig) else ViT(config)
    except (RuntimeError, MemoryError) as error:  # of torch's allocator
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(
            f"expected a model that fits into this machine's memory; found a larger one: {reason}"
        ) from None


def filled(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """The outline with these tensors as its weights (not copied, in their precision), in eval mode and frozen."""
    owners = dict(model.named_modules())
    for name, x in weights.items():  # torch's load_state_dict looks at every name once for each module
        path, _, own = name.rpartition(".")
        is_parameter = own in owners[path]._parameters
        setattr(owners[path], own, nn.Parameter(x, requires_grad=False) if is_parameter else x)
    model.eval().requires_grad_(False)
    return model


def expect_finite(weights: Mapping[str, Tensor], source: object) -> None:
    """Raise NotFiniteError, which names the parameters, if some weights are NaN or infinite. `source` is named too."""
    if are_finite(weights.values()):
        return
    wrong = [f"{name} has {found}" for name, x in weights.items() if (found := _not_finite(x))]
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    raise NotFiniteError(f"expected finite weights in {source}; found that {', '.join(wrong[:NAMED])}{more}")


def _not_finite(x: Tensor) -> str | None:
    """NaN or infinity, if a tensor has them."""
    found = first_not_finite(x)
    return None if found is None else "NaN" if math.isnan(found[1]) else "infinity"


@lru_cache(maxsize=4)
def shapes_in(config: ViTConfig) -> Mapping[str, Tensor]:
    """Shapes and types of the weights of an architecture. A run writes hundreds of checkpoints of one."""
    return outline(config).state_dict()
