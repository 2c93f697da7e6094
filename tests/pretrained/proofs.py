"""What every reader must show, on the cases of its source."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prisma.pretrained.families import family_of
from prisma.pretrained.family import Family
from prisma.pretrained.parity import compare, randomise
from prisma.pretrained.rules import _apply, convert

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def expect_parity(module: nn.Module, images: Tensor, family: Family | None = None) -> None:
    """Outputs and every layer's residual stream, with random weights, in both precisions."""
    randomise(module)
    for dtype, tolerance in TOLERANCE.items():
        found = compare(family or family_of(module), module.to(dtype), _as(dtype, images))
        assert found.largest <= tolerance, found


def idle_parameters(module: nn.Module, images: Tensor, family: Family | None = None) -> set[str]:
    """Parameters of the source that can be perturbed without changing what our reading answers.

    One pass back through our forward and the rules finds the parameters with a part to first order, which are nearly
    all. The others (such as those that a reader itself resamples) are perturbed, and our reading is made anew.
    """
    family, module, images = family or family_of(module), module.double(), _as(torch.float64, images)
    randomise(module)

    @torch.no_grad()
    def answer() -> Tensor:
        return convert(family.read(module), module.state_dict(), family.name)(images)

    before = answer()
    changes = _first_order_changes(family, module, images, before)
    rest = {name: x for name, x in module.named_parameters() if abs(changes.get(name, 0.0)) < 1e-9 * before.abs().max()}

    @torch.no_grad()
    def idle(names: list[str]) -> set[str]:
        """Those among these without a part: all if perturbing all changes nothing, else those of either half."""
        kept = {name: rest[name].clone() for name in names}
        for name in names:
            rest[name].add_(torch.randn_like(rest[name]))
        change = (answer() - before).abs().max() / before.abs().max()
        for name, x in kept.items():
            rest[name].copy_(x)
        if change < 1e-9 or len(names) == 1:
            return set(names) if change < 1e-9 else set()
        return idle(names[: len(names) // 2]) | idle(names[len(names) // 2 :])

    return idle(list(rest)) if rest else set()


def _first_order_changes(family: Family, module: nn.Module, images: Tensor, before: Tensor) -> dict[str, float]:
    """For each parameter, how fast a random part of the answer changes along a random direction of that parameter."""
    parameters = dict(module.named_parameters())
    frozen = [x for x in parameters.values() if not x.requires_grad]
    module.requires_grad_(True)
    conversion, tensors = family.read(module), module.state_dict(keep_vars=True)
    ours = convert(conversion, tensors, family.name)
    made = {target: _apply(conversion, target, tensors, set()) for target in ours.state_dict()}
    answer = functional_call(ours, {target: x for target, x in made.items() if x is not None}, (images,))
    torch.testing.assert_close(answer, before, rtol=0, atol=1e-9 * float(before.abs().max()))
    slopes = torch.autograd.grad(answer, list(parameters.values()), torch.randn_like(answer), allow_unused=True)
    for x in frozen:
        x.requires_grad_(False)
    along = [0.0 if slope is None else float((slope * torch.randn_like(slope)).sum()) for slope in slopes]
    return dict(zip(parameters, along, strict=True))


def _as(dtype: torch.dtype, images: Tensor) -> Tensor:
    """Token ids stay what they are."""
    return images.to(dtype) if images.is_floating_point() else images
