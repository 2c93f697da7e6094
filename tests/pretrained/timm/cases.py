"""Every timm architecture of the two classes, small: name -> a function that builds it, in two layers of width 96."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
from torch import nn

MODULES = ("vision_transformer", "deit", "eva")
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 96, "num_classes": 5}
FITTED: tuple[dict[str, Any], ...] = (
    {"num_heads": 3},
    {"num_heads": 3, "attn_pool_num_heads": 3},
    {"num_heads": 3, "num_kv_heads": (3, 1)},
    {"num_heads": 4},
)
"""What else must shrink, of architectures that say how many heads pool, or are grouped, or how they are rotated."""


def build(name: str) -> nn.Module:
    """On 4 x 3 patches, in evaluation mode, its weights as timm draws them."""
    refused = None
    for more in FITTED:
        try:
            patch = timm.create_model(name, **SMALL, **more, img_size=224).patch_embed.patch_size
            return timm.create_model(name, **SMALL, **more, img_size=(4 * patch[0], 3 * patch[1])).eval()
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            refused = refused or error
    raise RuntimeError(f"no small model of {name}") from refused


CASES: dict[str, Callable[[], nn.Module]] = {
    name: partial(build, name) for module in MODULES for name in timm.list_models(module=module)
}
