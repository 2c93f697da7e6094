"""What the results of edges have in common: an effect of every sender on every receiver, for pairs of images."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prisma.analysis.result import PairedEffect


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeEffects(PairedEffect):
    """Effects of edges on the metric, `metric(patched) - metric(target)`: how much, and in which direction."""

    AXES: ClassVar = {
        "effect": ("sender", "receiver"),
        "stderr": ("sender", "receiver"),
        "values": ("image", "sender", "receiver"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    values: Tensor  # [image, sender, receiver]

    @property
    def per_image(self) -> Tensor:
        return self.values
