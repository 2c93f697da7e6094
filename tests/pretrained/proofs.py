"""What every reader must show, on the cases of its source."""

import torch
from torch import Tensor, nn

from prisma.pretrained.families import family_of
from prisma.pretrained.family import Family
from prisma.pretrained.parity import compare, randomise
from prisma.pretrained.rules import convert

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def expect_parity(module: nn.Module, images: Tensor, family: Family | None = None) -> None:
    """Outputs and every layer's residual stream, with random weights, in both precisions."""
    randomise(module)
    for dtype, tolerance in TOLERANCE.items():
        found = compare(family or family_of(module), module.to(dtype), _as(dtype, images))
        assert found.largest <= tolerance, found


@torch.no_grad()
def idle_parameters(module: nn.Module, images: Tensor, family: Family | None = None) -> set[str]:
    """Parameters of the source that can be perturbed without changing what our reading answers."""
    family, module, images = family or family_of(module), module.double(), _as(torch.float64, images)
    randomise(module)

    def answer() -> Tensor:
        return convert(family.read(module), module.state_dict(), family.name)(images)

    before, idle = answer(), set()
    for name, parameter in module.named_parameters():
        kept = parameter.clone()
        parameter.add_(torch.randn_like(parameter))
        change = (answer() - before).abs().max() / before.abs().max()
        parameter.copy_(kept)
        if change < 1e-9:
            idle.add(name)
    return idle


def _as(dtype: torch.dtype, images: Tensor) -> Tensor:
    """Token ids stay what they are."""
    return images.to(dtype) if images.is_floating_point() else images
