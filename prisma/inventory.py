"""Which sites a model has."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from prisma.config import TextConfig, ViTConfig
from prisma.text import TextTower
from prisma.vit import ViT


class _Listing:
    """A tap that collects the name of every site."""

    def __init__(self, scope: str = "", names: dict[str, None] | None = None) -> None:
        self.scope = scope
        self.names: dict[str, None] = {} if names is None else names

    def __call__(self, site: str, x: Tensor) -> Tensor:
        self.names[self.scope + site] = None
        return x

    def wants(self, site: str) -> bool:
        return True

    def within(self, scope: str) -> "_Listing":
        return _Listing(f"{self.scope}{scope}.", self.names)


@lru_cache(maxsize=64)
def site_names(config: ViTConfig | TextConfig) -> tuple[str, ...]:
    """Every site of a model with this config, in forward order.

    Found by running the forward of the narrowest model of the same form, so that the list cannot differ from it.
    """
    listing = _Listing()
    sizes: dict[str, Any] = {"n_heads": 1, "d_head": 0, "d_mlp": min(config.d_mlp, 1), "n_classes": 1}
    with torch.random.fork_rng(devices=()), torch.device("cpu"), torch.no_grad():
        if isinstance(config, TextConfig):
            tower = TextTower(replace(config, **sizes, d_model=2, context=1, vocabulary=1))
            tower(torch.zeros(1, 1, dtype=torch.long), tap=listing)
        else:
            sizes |= {"d_model": 2 * config.n_axes, "image_size": 1, "patch_size": 1, "pool_heads": None}
            sizes["pool_d_mlp"] = config.pool_d_mlp and 1
            narrow = replace(config, **sizes)
            ViT(narrow)(torch.zeros(1, *narrow.input_shape), tap=listing)
    return tuple(listing.names)
