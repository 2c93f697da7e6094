"""Which sites a model has."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from prisma.config import ViTConfig
from prisma.vit import ViT


class _Listing:
    """A tap that wants everything and notes the names as they come."""

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
def site_names(config: ViTConfig) -> tuple[str, ...]:
    """Every site of a model with this config, in forward order.

    Found by running the forward of the narrowest model of the same form, so that the list cannot differ from it.
    """
    narrow = replace(
        config,
        image_size=1,
        patch_size=1,
        d_model=2 * config.n_axes,
        n_heads=1,
        d_mlp=min(config.d_mlp, 1),
        n_classes=1,
    )
    listing = _Listing()
    with torch.random.fork_rng(devices=()), torch.device("cpu"), torch.no_grad():
        ViT(narrow)(torch.zeros(1, *narrow.input_shape), tap=listing)
    return tuple(listing.names)
