"""Why a model of a class that Prisma does not read cannot be read: which of its properties."""

import re

from torch import nn

PROPERTIES = (
    (r".*(Window|Swin|Shifted).*", "attention within windows"),
    (r".*(PatchMerging|Downsample|Stage).*", "stages that change the number of tokens"),
    (r".*BatchNorm.*", "batch norm"),
    (r"Conv2d|Conv2dSame|StdConv2d.*", "convolutions"),
    (r"(LSTM|GRU)(Cell)?", "recurrence"),
)
"""Class of a part -> what a vision transformer of one residual stream does not have."""
PATCHES = 2  # convolutions that a patch embedding may hold


def properties(module: nn.Module) -> list[str]:
    """What stands between a model and a canonical vision transformer; empty if nothing that we know."""
    found = [type(part).__name__ for part in module.modules()]
    return [
        property
        for pattern, property in PROPERTIES
        if sum(bool(re.fullmatch(pattern, name)) for name in found) > (PATCHES if property == "convolutions" else 0)
    ]
